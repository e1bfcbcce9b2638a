"""The record of `tritonrag_perf.precision_quality`: every question's figures as JSON, and means and ratios as a page."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tritonrag_backends.embedding.format import Precision
from tritonrag_client.contract import Mode
from tritonrag_perf.bootstrap import CONFIDENCE, RESAMPLES, Estimate, Float64Array, ratio_estimate
from tritonrag_perf.machine import Machine
from tritonrag_perf.relevance_measures import TOP

PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "int8")
MEASURES: Final = (f"nDCG@{TOP}", f"recall@{TOP}")
_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionScores:
    """One question in one mode: by precision the measures' values, 0 to 1, and the first documents, best first."""

    question: str
    split: str
    mode: Mode
    values: Mapping[Precision, Mapping[str, float]]
    documents: Mapping[Precision, Sequence[str]]

    @property
    def shared(self) -> float:
        """The share of fp32's first documents that are among int8's too."""
        fp32, int8 = (set(self.documents[precision][:TOP]) for precision in PRECISIONS)
        return len(fp32 & int8) / len(fp32) if fp32 else 1.0

    def gain(self, measure: str) -> float:
        """What int8 has more than fp32."""
        return self.values["int8"][measure] - self.values["fp32"][measure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One mode on the questions of one split ("" for all). `ratio` is int8 over fp32; None: fp32 found nothing at all.

    int8 is better than fp32 on `better` questions and worse on `worse`.
    """

    split: str
    mode: Mode
    measure: str
    questions: int
    fp32: float
    int8: float
    ratio: Estimate | None
    better: int
    worse: int
    shared: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionRecord:
    """All of one run. `missing` relevant ids match no document: neither precision can find them."""

    date: str
    machine: Machine
    command: str
    questions: str
    corpus: str
    embedder: str
    missing: tuple[str, ...]
    scores: tuple[QuestionScores, ...]

    def comparisons(self) -> Iterator[Comparison]:
        """All questions first, then each split where there are several; every mode, every measure."""
        splits = list(dict.fromkeys(one.split for one in self.scores))
        for split in ["", *(splits if len(splits) > 1 else [])]:
            for mode in dict.fromkeys(one.mode for one in self.scores):
                rows = [one for one in self.scores if one.mode == mode and split in {"", one.split}]
                yield from (_comparison(split, mode, measure, rows) for measure in MEASURES)


def _comparison(split: str, mode: Mode, measure: str, rows: Sequence[QuestionScores]) -> Comparison:
    fp32, int8 = (_column(rows, lambda one, p=p: one.values[p][measure]) for p in PRECISIONS)  # type: ignore[misc]
    gains = _column(rows, lambda one: one.gain(measure))
    return Comparison(
        split=split,
        mode=mode,
        measure=measure,
        questions=len(rows),
        fp32=float(fp32.mean()),
        int8=float(int8.mean()),
        ratio=ratio_estimate(int8, fp32, seed=_SEED),
        better=int((gains > 0).sum()),
        worse=int((gains < 0).sum()),
        shared=float(_column(rows, lambda one: one.shared).mean()),
    )


def _column(rows: Sequence[QuestionScores], figure: Callable[[QuestionScores], float]) -> Float64Array:
    return np.array([figure(one) for one in rows], np.float64)


_NOTES: Final = f"""\
- The same passages and questions in both precisions, each with an index of its own; search is exact, so that all the
  difference is the embedder's.
- recall@{TOP} is the share of a question's relevant documents among the first {TOP}, nDCG@{TOP} weighs them by rank; as
  trec_eval computes them. Documents are ranked, each by its best passage.
- "int8 / fp32" is the ratio of the two means, in brackets its {CONFIDENCE:.0%} bootstrap interval: questions are drawn
  with both of their values ({RESAMPLES:,} resamples, percentiles). An interval that holds 1 means that these questions show no
  difference.
- "better", "worse": questions on which int8 has more, or less; on all others both have the same.
- "shared": the mean share of fp32's first {TOP} documents that are among int8's first {TOP} too. Others may be as good."""


def render(record: PrecisionRecord) -> str:
    """The page, in Markdown."""
    lines = [
        "# Retrieval quality: the int8 embedder against fp32",
        "",
        f"Measured on {record.date}: {record.machine}.",
        f"{record.questions}, asked of {record.corpus}, embedded by {record.embedder}.",
        "",
        f"    {record.command}",
        "",
        "| questions | mode | measure | fp32 | int8 | int8 / fp32 | better | worse | shared |",
        "|---" * 9 + "|",
        *map(_row, record.comparisons()),
        "",
        _NOTES,
    ]
    if record.missing:
        lines.append(
            f"- Of the relevant documents, {len(record.missing):,} are not in this corpus; they count as not found in both."
        )
    return "\n".join(lines) + "\n"


def _row(one: Comparison) -> str:
    cells = (
        f"{one.split or 'all'}, {one.questions:,}",
        f"`{one.mode}`",
        one.measure,
        f"{one.fp32:.4f}",
        f"{one.int8:.4f}",
        "-" if one.ratio is None else f"{one.ratio.mean:.4f} [{one.ratio.low:.4f}, {one.ratio.high:.4f}]",
        f"{one.better:,}",
        f"{one.worse:,}",
        f"{one.shared:.3f}",
    )
    return f"| {' | '.join(cells)} |"


def write_precision_record(record: PrecisionRecord, output: Path, name: str) -> list[Path]:
    """Write NAME.json and NAME.md; returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    content = {**asdict(record), "comparisons": [asdict(one) for one in record.comparisons()]}
    data.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(render(record), encoding="utf-8")
    return [data, page]
