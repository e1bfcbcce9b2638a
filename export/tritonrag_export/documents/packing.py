"""Filling passages with pieces."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import groupby
from operator import attrgetter
from typing import Final

from tritonrag_export.documents.sections import Section

_RUNT_TOKENS: Final = 24  # says too little on its own: about one short sentence
_LEAD_IN_TOKENS: Final = 48
_UNKNOWN_TOKENS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large passages get: about `target_tokens`, at most `max_tokens` and `max_chars` characters."""

    target_tokens: int
    max_tokens: int
    max_chars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Consecutive pieces of one section: `text[start:end]`.

    `tokens` is the sum over the pieces. Counted as one text there can be more, with a tokenizer that counts white space:
    up to `extra_tokens`, one for each character between two pieces and one for the joint. `leads_in` says that the last
    piece ends with a colon.
    """

    start: int
    end: int
    tokens: int
    block: int
    section: Section
    leads_in: bool = False
    extra_tokens: int = 0

    def joined(self, other: "Run") -> "Run":
        """The run and the one that follows it, as one."""
        gap = other.start - self.end
        return replace(
            self,
            end=other.end,
            tokens=self.tokens + other.tokens,
            block=other.block,
            leads_in=other.leads_in,
            # Without a gap the two may be parts of one word, whose tokens nobody knows.
            extra_tokens=self.extra_tokens + other.extra_tokens + (gap + 1 if gap else _UNKNOWN_TOKENS),
        )


def pack(runs: Iterable[Run], limits: Limits) -> Iterator[Run]:
    """Join runs of single pieces to passages; none crosses a section."""
    for _, section in groupby(runs, key=attrgetter("section")):
        yield from _without_runts(_filled(section, limits), limits)


@dataclass(slots=True)
class _Passage:
    """The passage that is being filled."""

    limits: Limits
    runs: list[Run] = field(default_factory=list)
    tokens: int = 0

    def add(self, run: Run) -> None:
        self.runs.append(run)
        self.tokens += run.tokens

    def has_room(self, run: Run) -> bool:
        """Whether the run may come in too. A passage that says next to nothing yet, or only announces something, stretches."""
        if not self.runs:
            return True
        stretch = self.tokens < _RUNT_TOKENS or (len(self.runs) == 1 and self.runs[0].leads_in)
        room = self.limits.max_tokens if stretch else self.limits.target_tokens
        return self.tokens + run.tokens <= room and run.end - self.runs[0].start <= self.limits.max_chars

    def close(self) -> Run:
        """The passage; empty afterwards, but for a last line that leads in ("For example:"): that opens the next one."""
        last = self.runs[-1]
        keep = len(self.runs) > 1 and last.leads_in and last.tokens <= _LEAD_IN_TOKENS
        closed = self.runs[:-1] if keep else self.runs
        self.runs, self.tokens = ([last], last.tokens) if keep else ([], 0)
        return reduce(Run.joined, closed)


def _filled(runs: Iterable[Run], limits: Limits) -> Iterator[Run]:
    """Passages of about the target size. They end with a paragraph where that leaves them half full at least."""
    passage = _Passage(limits)
    for _, group in groupby(runs, key=attrgetter("block")):
        block = list(group)
        fits = passage.tokens + sum(run.tokens for run in block) <= limits.target_tokens
        if not fits and passage.tokens >= limits.target_tokens / 2:
            yield passage.close()
        for run in block:
            if not passage.has_room(run):
                yield passage.close()
            passage.add(run)
    if passage.runs:
        yield reduce(Run.joined, passage.runs)


def _without_runts(passages: Iterable[Run], limits: Limits) -> Iterator[Run]:
    """A passage of a few words joins the one before it, where the two fit together."""
    held: Run | None = None
    for passage in passages:
        if held is None:
            held = passage
            continue
        fits = held.tokens + passage.tokens <= limits.max_tokens and passage.end - held.start <= limits.max_chars
        if passage.tokens < _RUNT_TOKENS and fits:
            held = held.joined(passage)
        else:
            yield held
            held = passage
    if held:
        yield held
