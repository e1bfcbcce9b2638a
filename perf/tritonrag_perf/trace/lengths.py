"""How long the parts of a prompt are: as the trace's files say, or estimated where a file is missing.

The estimate: all pieces of a system prompt but the last have 512 tokens, as RAGPulse cuts them. The last has what the shortest
prompt that begins with the same piece leaves, passages and question aside; that is a prompt without history, so the estimate is
long by the few tokens of its chat template. What a longer prompt has beyond that is history and web search, in equal parts.
Whatever is estimated, the parts of a prompt together are as long as the trace says the prompt is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.trace.requests import ORDER, Kind, Part

_PIECE: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Loose:
    """A prompt whose parts have no lengths yet."""

    ids: Mapping[Kind, tuple[int, ...]]
    prompt_tokens: int


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Token lengths by kind and id; None for a kind that is to be estimated from `requests`."""

    given: Mapping[Kind, Mapping[int, int] | None]
    requests: Sequence[Loose]

    @property
    def estimated(self) -> tuple[str, ...]:
        """The kinds that no file tells of, though the trace uses them."""
        return tuple(
            kind for kind in ORDER if self.given[kind] is None and any(request.ids[kind] for request in self.requests)
        )

    def known(self, loose: Loose, kind: Kind, place: str = "the trace") -> list[int] | None:
        """The lengths of the request's ids of a kind. Raises BadRequestError for an id whose length the file lacks."""
        table = self.given[kind]
        if table is None:
            return None
        for id_ in loose.ids[kind]:
            if id_ not in table:
                raise BadRequestError(f"{place} uses the {kind} id {id_}, whose length no file gives; add it")
        return [table[id_] for id_ in loose.ids[kind]]

    def left(self, loose: Loose) -> int:
        """Tokens that the kinds with known lengths leave of the prompt."""
        return loose.prompt_tokens - sum(sum(self.known(loose, kind) or ()) for kind in ORDER)

    @cached_property
    def last_pieces(self) -> Mapping[int, int]:
        """Estimated length of the last piece of a system prompt, by its first id."""
        least: dict[int, int] = {}
        for loose in self.requests:
            if ids := loose.ids["system"]:
                last = max(self.left(loose) - _PIECE * (len(ids) - 1), 1)
                least[ids[0]] = min(last, least.get(ids[0], last))
        return least


def parts_of(loose: Loose, lengths: Lengths, *, place: str) -> tuple[Part, ...]:
    """The prompt's parts, which together have its length. Raises BadRequestError where they have more, or an id has no length."""
    tokens = {kind: lengths.known(loose, kind, place) for kind in ORDER}
    left = lengths.left(loose)
    if tokens["system"] is None:
        tokens["system"] = system = _system(loose, lengths, left)
        left -= sum(system)
    unknown: list[Kind] = [kind for kind in ORDER if tokens[kind] is None]
    shares = _even(max(left, 0), sum(len(loose.ids[kind]) for kind in unknown))
    for kind in unknown:
        tokens[kind] = [shares.pop() for _ in loose.ids[kind]]
    parts = [
        Part(kind=kind, id=id_, tokens=length)
        for kind in ORDER
        for id_, length in zip(loose.ids[kind], tokens[kind] or (), strict=True)
    ]
    rest = loose.prompt_tokens - sum(part.tokens for part in parts)
    if rest < 0:
        raise BadRequestError(f"{place} has the input_length {loose.prompt_tokens}, but its parts have {-rest} more")
    # The template's tokens differ by a few from prompt to prompt: they count as the same for the same question alone.
    return (*parts, Part(kind="rest", id=loose.ids["question"][0], tokens=rest))


def _system(loose: Loose, lengths: Lengths, left: int) -> list[int]:
    """Never more than is left."""
    ids = loose.ids["system"]
    wanted = [_PIECE] * (len(ids) - 1) + ([lengths.last_pieces[ids[0]]] if ids else [])
    sizes = []
    for size in wanted:
        sizes.append(min(size, max(left, 0)))
        left -= sizes[-1]
    return sizes


def _even(total: int, count: int) -> list[int]:
    return [total // count + (i < total % count) for i in range(count)] if count else []
