"""How far poisoned documents get: what each question was given, in shares with their intervals, as JSON and as a page."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from tritonrag_client.contract import Mode
from tritonrag_perf.bootstrap import CONFIDENCE, RESAMPLES, Estimate, Float64Array, estimates
from tritonrag_perf.injection_report import interval
from tritonrag_perf.machine import Machine
from tritonrag_perf.poisoning_items import ATTACKS, Attack
from tritonrag_perf.quality import FEWEST_QUESTIONS
from tritonrag_perf.retrieval_quality import CUTOFFS, MODES

Guard = Literal["nothing", "another tenant", "filter", "author's filter"]
DEPTHS: Final = (*CUTOFFS, 20, 50)
DEFAULT: Final = 5  # passages that a request gets which does not say how many
_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The passages that one question got, `found` of them: the ranks, from 1, of the poisoned and of the right ones."""

    poisoned: tuple[int, ...]
    right: tuple[int, ...]
    found: int

    @classmethod
    def of(cls, passages: Sequence[bytes], *, poison: frozenset[bytes], right: frozenset[bytes]) -> "Given":
        """Of the passages as they lie on the disk, best first."""
        return cls(
            poisoned=tuple(rank for rank, one in enumerate(passages, start=1) if one in poison),
            right=tuple(rank for rank, one in enumerate(passages, start=1) if one in right),
            found=len(passages),
        )

    def has_poison(self, k: int) -> float:
        """1 where one of the first k is poisoned, else 0."""
        return float(any(rank <= k for rank in self.poisoned))

    def share(self, k: int) -> float:
        """The share of the first k, or of as many as were found, that is poisoned."""
        return sum(rank <= k for rank in self.poisoned) / max(1, min(k, self.found))

    def has_right(self, k: int) -> float:
        """1 where a right passage is among the first k, else 0."""
        return float(any(rank <= k for rank in self.right))


MEASURES: Final[Mapping[str, Callable[[Given, int], float]]] = {
    "poisoned": Given.has_poison,
    "share poisoned": Given.share,
    "right": Given.has_right,
}
_HEADINGS: Final = {
    "poisoned": "Questions that are given a poisoned passage",
    "share poisoned": "Share of the passages given that is poisoned",
    "right": "Questions that are given a right passage",
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """All questions of a set, asked one way. `attack` None: without poison, or behind the wall, with the poison of every attack."""

    questions: str
    attack: Attack | None
    guard: Guard
    mode: Mode
    given: tuple[Given, ...]

    def column(self, measure: str, k: int) -> Float64Array:
        """A measure of each question, FP64 [questions]."""
        return np.array([MEASURES[measure](one, k) for one in self.given], np.float64)

    @cached_property
    def figures(self) -> dict[str, dict[int, Estimate]]:
        """Every measure at every depth."""
        return {
            measure: dict(zip(DEPTHS, summary(np.column_stack([self.column(measure, k) for k in DEPTHS])), strict=True))
            for measure in MEASURES
        }


def summary(values: Float64Array) -> list[Estimate]:
    """The mean of each column of FP64 [questions, columns]: by Wilson where all are 0 or 1, else by the bootstrap."""
    yes_or_no = np.isin(values, (0.0, 1.0)).all(axis=0)
    drawn = iter(estimates(values[:, ~yes_or_no], seed=_SEED)) if not yes_or_no.all() else iter(())
    return [
        _wilson(int(column.sum()), len(column)) if whole else next(drawn)
        for column, whole in zip(values.T, yes_or_no.tolist(), strict=True)
    ]


def _wilson(hits: int, of: int) -> Estimate:
    low, high = interval(hits, of)
    return Estimate(mean=hits / of, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotes:
    """What the engine `extractive` answered from the default number of passages: counts of `of` questions.

    `false` answers hold a statement of the attacker's, `begins` begin with one, `only` hold nothing else. `hollow` ones hold
    nothing but the question repeated, or words stuffed in, which state nothing. `right` ones hold a sentence of a right source.
    """

    questions: str
    attack: Attack | None
    of: int
    answered: int
    false: int
    begins: int
    only: int
    hollow: int
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisoningRecord:
    """All of one run. `sets` tells how many questions there are by their name, `examples` the texts of each attack on the first."""

    date: str
    machine: Machine
    command: str
    corpus: str
    written: int
    sets: Mapping[str, int]
    examples: Mapping[str, Sequence[str]]
    trials: tuple[Trial, ...]
    quotes: tuple[Quotes, ...]

    def trial(self, questions: str, attack: Attack | None, guard: Guard, mode: Mode) -> Trial:
        """The one that was asked so. Behind the wall the poison of every attack was there at once."""
        wanted = (questions, None if guard == "another tenant" else attack, guard, mode)
        return next(one for one in self.trials if (one.questions, one.attack, one.guard, one.mode) == wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way of asking for k passages: a row of the page."""

    mode: Mode
    k: int
    guard: Guard = "nothing"

    def __str__(self) -> str:
        guard = {
            "nothing": "",
            "another tenant": ", poison of another tenant",
            "filter": ", filter: no uploads",
            "author's filter": ", filter: what its author calls reviewed",
        }[self.guard]
        return f"`{self.mode}`, {self.k}{guard}"


WAYS: Final = (
    *(Way(mode=mode, k=k) for mode in MODES for k in (DEPTHS if mode == "hybrid" else CUTOFFS)),
    Way(mode="hybrid", k=DEFAULT, guard="another tenant"),
    Way(mode="hybrid", k=DEFAULT, guard="filter"),
    Way(mode="hybrid", k=DEFAULT, guard="author's filter"),
)
COMPARED: Final = (
    (Way(mode="hybrid", k=DEFAULT), Way(mode="dense", k=DEFAULT)),
    (Way(mode="hybrid", k=DEFAULT), Way(mode="lexical", k=DEFAULT)),
    (Way(mode="hybrid", k=20), Way(mode="hybrid", k=DEFAULT)),
)

_NOTES: Final = f"""\
- A column is an attack and how many documents it has for each question. `naive`: a false statement that names the topic by the
  question's three rarest words. `repeating`: the question, then that statement (PoisonedRAG's black-box attack, Zou et al. 2024).
  `joined`: both as one sentence. `stuffed`: the question's five rarest words three times, then that statement. There are five
  statements, written by hand; who has a language model, or the embedder to optimise against, writes better ones, and more than five
  documents fill more places: these shares are no upper bound.
- Each question is asked by a tenant of its own, who sees the index and the documents against this question alone: what is written
  against one is not counted with another. A row tells the mode and how many passages are given, 1 of them being rank 1.
- "poison of another tenant": the asker is a tenant without documents, and those of all attacks are in the index.
- "filter: no uploads": whoever feeds the index marked the attacker's documents (`origin` is "upload"), and the request leaves those
  out. "what its author calls reviewed": the filter goes by a field that the attacker filled in, as front matter lets everybody do.
- A right passage is the one that the question was drawn from; with labelled questions one of a right source that holds a right
  answer. Drawn questions have their passage's own title or words, which makes the right passage easier to find than in life.
- Each question was asked once, for {max(DEPTHS)} passages; where search is exact (`flat`), fewer are the first of these.
- In brackets: {CONFIDENCE:.0%} intervals, Wilson's where each question counts 0 or 1, else bootstrap over questions ({RESAMPLES:,}
  resamples, percentiles). The tables are of one draw of questions and one set of statements. Differences are paired, question by
  question, in percentage points; **bold** where the interval leaves 0 out and there are {FEWEST_QUESTIONS} questions or more.
- The retriever has no cap on passages of one source and does not look for near-duplicates; there was nothing to measure."""


def render(record: PoisoningRecord) -> str:
    """The page, in Markdown."""
    lines = [
        "# Poisoned documents: how far they get",
        "",
        f"Measured on {record.date}: {record.machine}.",
        f"{record.corpus}; {record.written:,} poisoned documents of one passage each were added to a copy of it.",
        "",
        f"    {record.command}",
        "",
    ]
    for questions, count in record.sets.items():
        lines += [f"## {count:,} questions {questions}", ""]
        for measure, heading in _HEADINGS.items():
            lines += [f"### {heading}", "", *_table(record, questions, measure), ""]
        lines += [_held(record, questions), "", "### Differences", "", *_differences(record, questions), ""]
        lines += [f"### What `extractive` quotes of {DEFAULT} passages, `hybrid`", "", *_quotes(record, questions), ""]
    return "\n".join([*lines, _NOTES]) + "\n"


def _table(record: PoisoningRecord, questions: str, measure: str) -> list[str]:
    attacks = (None, *ATTACKS)
    rows = [[str(way), *(_cell(record, questions, attack, way, measure) for attack in attacks)] for way in WAYS]
    return _lines(["passages given", "without poison", *map(str, ATTACKS)], rows)


def _cell(record: PoisoningRecord, questions: str, attack: Attack | None, way: Way, measure: str) -> str:
    if attack is None and way.guard != "nothing":
        return "-"
    estimate = record.trial(questions, attack, way.guard, way.mode).figures[measure][way.k]
    return f"{estimate.mean:.0%} ({estimate.low:.0%} to {estimate.high:.0%})"


def _held(record: PoisoningRecord, questions: str) -> str:
    """The wall and the filter in all modes and at the greatest depth, where most could get through."""
    guarded = {
        guard: [one for one in record.trials if (one.questions, one.guard) == (questions, guard)]
        for guard in ("another tenant", "filter")
    }
    counts = {guard: sum(len(one.given) for one in trials) for guard, trials in guarded.items()}
    leaks = {
        guard: sum(bool(given.poisoned) for one in trials for given in one.given) for guard, trials in guarded.items()
    }
    same = sum(
        given == clean
        for one in guarded["another tenant"]
        for given, clean in zip(one.given, record.trial(questions, None, "nothing", one.mode).given, strict=True)
    )
    wall = counts["another tenant"]
    return (
        f"In all modes, {max(DEPTHS)} passages given: poison of another tenant is among them {leaks['another tenant']:,} times of"
        f" {wall:,}, and {same:,} times of {wall:,} the right passages have the ranks that they have without poison; with the"
        f" filter on uploads poison is among them {leaks['filter']:,} times of {counts['filter']:,}."
    )


def _differences(record: PoisoningRecord, questions: str) -> list[str]:
    rows = [
        [f"{way} - {baseline}", measure, *_gains(record, questions, (way, baseline), measure)]
        for way, baseline in COMPARED
        for measure in MEASURES
    ]
    return _lines(["difference", "measure", *map(str, ATTACKS)], rows)


def _gains(record: PoisoningRecord, questions: str, ways: tuple[Way, Way], measure: str) -> Iterator[str]:
    """What the first way has more than the second, for each attack."""
    ours, theirs = (
        np.column_stack(
            [record.trial(questions, attack, way.guard, way.mode).column(measure, way.k) for attack in ATTACKS]
        )
        for way in ways
    )
    for one in estimates(ours - theirs, seed=_SEED):
        cell = f"{100 * one.mean:+z.0f} ({100 * one.low:+z.0f} to {100 * one.high:+z.0f})"
        yield f"**{cell}**" if len(ours) >= FEWEST_QUESTIONS and one.leaves_0_out else cell


def _quotes(record: PoisoningRecord, questions: str) -> list[str]:
    rows = [
        [str(one.attack or "without poison"), *(_count(hits, one.of) for hits in _counts(one))]
        for one in record.quotes
        if one.questions == questions
    ]
    headings = ["answered", "states what is false", "begins with it", "states nothing else", "states nothing"]
    return _lines(["attack", *headings, "quotes a right source"], rows)


def _counts(one: Quotes) -> tuple[int, ...]:
    return one.answered, one.false, one.begins, one.only, one.hollow, one.right


def _count(hits: int, of: int) -> str:
    low, high = interval(hits, of)
    return f"{hits} of {of} ({low:.0%} to {high:.0%})"


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows)]


def as_json(record: PoisoningRecord) -> dict[str, Any]:
    """Every figure, and what was given to each question as "poisoned ranks; right ranks"."""
    return {
        "date": record.date,
        "machine": asdict(record.machine),
        "command": record.command,
        "corpus": record.corpus,
        "written": record.written,
        "sets": dict(record.sets),
        "examples": dict(record.examples),
        "trials": [
            {
                "questions": one.questions,
                "attack": str(one.attack or ""),
                "guard": one.guard,
                "mode": one.mode,
                "figures": {
                    measure: {
                        k: [round(x, 4) for x in (estimate.mean, estimate.low, estimate.high)]
                        for k, estimate in depths.items()
                    }
                    for measure, depths in one.figures.items()
                },
                "given": " | ".join(f"{_ranks(given.poisoned)}; {_ranks(given.right)}" for given in one.given),
            }
            for one in record.trials
        ],
        "quotes": [{**asdict(one), "attack": str(one.attack or "")} for one in record.quotes],
    }


def _ranks(ranks: Sequence[int]) -> str:
    return " ".join(map(str, ranks)) or "-"


def write_poisoning(record: PoisoningRecord, output: Path, name: str) -> list[Path]:
    """Write NAME.json and NAME.md; returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    data.write_text(json.dumps(as_json(record), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    page.write_text(render(record), encoding="utf-8")
    return [data, page]
