"""What measuring retrieval quality gives: the measures of each mode and split with their intervals, and each question's outcome."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tritonrag_client.contract import Mode
from tritonrag_perf.bootstrap import Estimate
from tritonrag_perf.machine import Machine

Scores = Mapping[str, Estimate]  # by measure
# Percentile intervals of few questions are too narrow. Measured on 400 draws from a recall of 0.8: the 95 % interval of 5 questions
# holds 0.8 in 67 % of them, that of 10 in 90 %, of 20 in 93 %, of 40 and more in 96 %.
FEWEST_QUESTIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`mode` less `baseline`, question by question, by measure."""

    mode: Mode
    baseline: Mode
    scores: Scores

    def __str__(self) -> str:
        return f"{self.mode} - {self.baseline}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitQuality:
    """The questions of one split; `split` None: all of them."""

    split: str | None
    questions: int
    scores: Mapping[Mode, Scores]
    differences: tuple[Difference, ...]

    def is_beyond_noise(self, difference: Estimate) -> bool:
        """Whether a difference is more than what the choice of so many questions explains."""
        return self.questions >= FEWEST_QUESTIONS and difference.leaves_0_out

    def __str__(self) -> str:
        return f"{self.split or 'all'}, {self.questions:,} question{'s' if self.questions > 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one mode found for a question: the rank of the first relevant document, from 1, and the documents of the first ranks.

    `rank` None: none among the documents that were looked at (QualityReport.depth).
    """

    rank: int | None
    documents: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One question in every mode."""

    id: str
    question: str
    split: str
    relevant: tuple[str, ...]
    found: Mapping[Mode, Found]

    def is_missed(self, mode: Mode, within: int) -> bool:
        """Whether the mode has no relevant document among the first `within`."""
        rank = self.found[mode].rank
        return rank is None or rank > within


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """Every split that the questions have, then all of them together where there are several.

    `num_passages` were asked for, and a ranking is the first `depth` of their documents; `short` counts each mode's questions whose
    passages have fewer. Of the relevant ids, `missing` match no document of the index, `ambiguous` several.
    """

    measures: tuple[str, ...]
    num_passages: int
    depth: int
    splits: tuple[SplitQuality, ...]
    short: Mapping[Mode, int]
    outcomes: tuple[Outcome, ...]
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...]

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes in the order of measuring."""
        return tuple(self.short)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRecord:
    """A report with what a reader needs to judge and repeat it. `questions` and `index` say in words what was asked of what."""

    date: str
    machine: Machine
    command: str
    questions: str
    index: str
    report: QualityReport

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return asdict(self)
