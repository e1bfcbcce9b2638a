"""Measure retrieval quality: search every question in every mode, rank documents, and hold the rankings to the judgements."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tritonrag_client.contract import MAX_BATCH, Mode
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.bootstrap import estimates
from tritonrag_perf.document_lookup import DocumentLookup
from tritonrag_perf.judgements import QuestionFile
from tritonrag_perf.quality import Difference, Found, Outcome, QualityReport, Scores, SplitQuality
from tritonrag_perf.question_matching import MatchedQuestion, Matches, match
from tritonrag_perf.relevance_measures import MOST_CUTOFF, TOP, Float64Array, evaluate, names_of

# (questions, mode, passages) to each question's documents: those of its first `passages` passages, best first, repeats among them
Search = Callable[[Sequence[str], Mode, int], Sequence[Sequence[str]]]
Progress = Callable[[Mode, int], None]  # the mode, questions searched

MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
CUTOFFS = (1, 5, 10)
_COMPARED: tuple[tuple[Mode, Mode], ...] = (("hybrid", "dense"), ("hybrid", "lexical"), ("lexical", "dense"))
# Few documents have more passages than this among the best, and asking for more than a server's users do measures something else:
# hybrid search fuses longer lists then, and ranks the same passages differently.
_PASSAGES_A_DOCUMENT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityPlan:
    """What to measure: `modes`, each once, with recall at `cutoffs`, ascending.

    `num_passages` are asked for; None: 5 for each document of a ranking. Raises BadRequestError for what can't be measured.
    """

    modes: tuple[Mode, ...] = MODES
    cutoffs: tuple[int, ...] = CUTOFFS
    num_passages: int | None = None

    def __post_init__(self) -> None:
        if not self.modes or not set(self.modes) <= set(MODES) or len(set(self.modes)) < len(self.modes):
            raise BadRequestError(f"modes are {list(self.modes)}; give at least one of {', '.join(MODES)}, each once")
        if not self.cutoffs or list(self.cutoffs) != sorted(set(self.cutoffs)) or self.cutoffs[0] < 1:
            raise BadRequestError(f"recall is wanted at {list(self.cutoffs)}; give numbers from 1, ascending")
        if self.depth > MOST_CUTOFF:
            raise BadRequestError(f"recall is wanted at {self.depth}; give numbers up to {MOST_CUTOFF}")
        if self.passages < self.depth:
            raise BadRequestError(
                f"num_passages is {self.passages}, which can't be of {self.depth} documents; give {self.depth} or more"
            )

    @property
    def depth(self) -> int:
        """Documents in a ranking."""
        return max(TOP, *self.cutoffs)

    @property
    def passages(self) -> int:
        """Passages to ask for."""
        return _PASSAGES_A_DOCUMENT * self.depth if self.num_passages is None else self.num_passages

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of the measures."""
        return names_of(self.cutoffs)


def measure(
    questions: QuestionFile,
    documents: Sequence[str],
    search: Search,
    *,
    plan: QualityPlan,
    seed: int = 0,
    progress: Progress | None = None,
) -> QualityReport:
    """Measure `search` over an index that holds `documents`. A document ranks where its best passage does.

    `seed` is that of the intervals. Raises BadRequestError where no relevant document at all is in the index.
    """
    lookup = DocumentLookup(documents)
    matches = match(questions, lookup)
    asking = Asking(matches=matches, search=search, plan=plan, progress=progress or no_progress)
    rankings = {mode: asking.rankings(mode) for mode in plan.modes}
    grades = [matched.grades for matched in matches.questions]
    values = {mode: evaluate(grades, rankings[mode], cutoffs=plan.cutoffs) for mode in plan.modes}
    return QualityReport(
        measures=plan.measures,
        num_passages=plan.passages,
        depth=plan.depth,
        splits=tuple(
            _split_quality(split, {mode: every[rows] for mode, every in values.items()}, plan.measures, seed)
            for split, rows in _splits(questions)
        ),
        short={mode: sum(len(ranking) < plan.depth for ranking in ranked) for mode, ranked in rankings.items()},
        outcomes=tuple(
            _outcome(matched, {mode: ranked[number] for mode, ranked in rankings.items()}, lookup)
            for number, matched in enumerate(matches.questions)
        ),
        missing=matches.missing,
        ambiguous=matches.ambiguous,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Which questions are asked, of what and how."""

    matches: Matches
    search: Search
    plan: QualityPlan
    progress: Progress

    def rankings(self, mode: Mode) -> list[tuple[str, ...]]:
        """The first `depth` documents for each question."""
        questions, rankings = self.matches.questions, list[tuple[str, ...]]()
        for start in range(0, len(questions), MAX_BATCH):
            self.progress(mode, start)
            batch = questions[start : start + MAX_BATCH]
            hits = self.search([matched.question.text for matched in batch], mode, self.plan.passages)
            rankings += [matched.rank(found, self.plan.depth) for matched, found in zip(batch, hits, strict=True)]
        return rankings


def _splits(questions: QuestionFile) -> Iterator[tuple[str | None, list[int]]]:
    """The rows of each split in the order of the file, then all of them, unless that is the same."""
    rows: dict[str, list[int]] = {}
    for number, question in enumerate(questions.questions):
        rows.setdefault(question.split, []).append(number)
    if len(rows) > 1 or "" not in rows:
        yield from rows.items()
    if len(rows) > 1 or "" in rows:
        yield None, list(range(len(questions.questions)))


def _split_quality(
    split: str | None, values: dict[Mode, Float64Array], measures: tuple[str, ...], seed: int
) -> SplitQuality:
    """One draw of questions serves all modes and their differences."""
    pairs = [pair for pair in _COMPARED if set(pair) <= values.keys()]
    blocks = [*values.values(), *(values[mode] - values[baseline] for mode, baseline in pairs)]
    means = iter(estimates(np.hstack(blocks), seed=seed))

    def next_scores() -> Scores:
        return {name: next(means) for name in measures}

    return SplitQuality(
        split=split,
        questions=len(blocks[0]),
        scores={mode: next_scores() for mode in values},
        differences=tuple(Difference(mode=mode, baseline=baseline, scores=next_scores()) for mode, baseline in pairs),
    )


def _outcome(matched: MatchedQuestion, rankings: dict[Mode, tuple[str, ...]], documents: DocumentLookup) -> Outcome:
    question = matched.question
    return Outcome(
        id=question.id,
        question=question.text,
        split=question.split,
        relevant=tuple(question.relevant),
        found={mode: _found(matched, ranking, documents) for mode, ranking in rankings.items()},
    )


def _found(matched: MatchedQuestion, ranking: tuple[str, ...], documents: DocumentLookup) -> Found:
    ranks = (rank for rank, document in enumerate(ranking, start=1) if document in matched.grades)
    return Found(rank=next(ranks, None), documents=tuple(map(documents.short, ranking[:TOP])))


def no_progress(_mode: Mode, _done: int) -> None:
    """Tell nobody."""
