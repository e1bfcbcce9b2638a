"""A record of retrieval quality as Markdown for people, JSON for programs, and a picture."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tritonrag_perf.bootstrap import CONFIDENCE, RESAMPLES, Estimate
from tritonrag_perf.plot import require_matplotlib
from tritonrag_perf.quality import FEWEST_QUESTIONS, Outcome, QualityRecord, QualityReport, SplitQuality
from tritonrag_perf.quality_plot import write_quality_plot
from tritonrag_perf.relevance_measures import TOP

_MOST_MISSED = 50  # questions that the page lists; the JSON has all
_MOST_IDS = 10

_NOTES = f"""\
- recall@k is the share of a question's relevant documents that is among the first k. MRR@{TOP} is the mean of 1 / rank of the first
  relevant document, 0 beyond rank {TOP}. nDCG@{TOP} is the sum of grade / log2(rank + 1), divided by the highest that is possible.
  All as trec_eval computes them (pytrec-eval-terrier). Documents are ranked, each by its best passage.
- In brackets: {CONFIDENCE:.0%} bootstrap intervals over the questions ({RESAMPLES:,} resamples, percentiles). They tell how much
  the choice of questions matters, not how well these stand for those of users. Where every question has one and the same value,
  they have no width.
- A difference is taken question by question. It is **bold** where its interval leaves 0 out, as about one in twenty does
  by chance."""


def write_quality_record(record: QualityRecord, output: Path, *, name: str, title: str, plot: bool) -> list[Path]:
    """Write NAME.json, NAME.md and, with `plot`, NAME.png into `output`; returns what was written.

    Raises BadRequestError where a plot is wanted and matplotlib is not installed.
    """
    if plot:
        require_matplotlib()
    output.mkdir(parents=True, exist_ok=True)
    json_path, page, picture = (output / f"{name}.{ending}" for ending in ("json", "md", "png"))
    json_path.write_text(json.dumps(record.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(_page(record, title, picture.name if plot else None), encoding="utf-8")
    if not plot:
        return [json_path, page]
    write_quality_plot(picture, record)
    return [json_path, page, picture]


def score_cell(estimate: Estimate) -> str:
    """A mean and its interval."""
    return f"{estimate.mean:.3f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def difference_cell(estimate: Estimate) -> str:
    """A difference and its interval, both with their sign."""
    return f"{estimate.mean:+z.3f} [{estimate.low:+z.2f}, {estimate.high:+z.2f}]"


def warnings_of(report: QualityReport) -> list[str]:
    """What a reader must know to trust the figures: ids without a document, or with several; short rankings; few questions."""
    warnings = []
    if report.missing:
        warnings.append(
            f"relevant ids that match no document of the index, so that no mode can find it ({len(report.missing):,}):"
            f" {_ids(report.missing)}"
        )
    if report.ambiguous:
        warnings.append(
            f"relevant ids that match several documents of the index, of which any counts ({len(report.ambiguous):,}):"
            f" {_ids(report.ambiguous)}"
        )
    warnings += [
        f"{mode}: for {short:,} of {len(report.outcomes):,} questions the {report.num_passages:,} passages that were asked for"
        f" are of fewer than {report.depth} documents"
        for mode, short in report.short.items()
        if short
    ]
    warnings += [
        f"{split}: fewer than {FEWEST_QUESTIONS}, so that the intervals are too narrow and no difference counts as more than noise"
        for split in report.splits
        if split.questions < FEWEST_QUESTIONS
    ]
    return warnings


def _page(record: QualityRecord, title: str, plot: str | None) -> str:
    report = record.report
    lines = [
        f"# {title}",
        "",
        f"Measured on {record.date}: {record.machine}.",
        f"{record.questions}, asked of {record.index}; {report.num_passages:,} passages a question.",
        "",
        f"    {record.command}",
        "",
        *([f"![{', '.join(report.measures)} by mode]({plot})", ""] if plot else []),
        *(line for split in report.splits for line in _split_section(report, split)),
        _NOTES,
        *(f"- {warning}." for warning in warnings_of(report)),
        *_missed_section(report),
    ]
    return "\n".join(lines) + "\n"


def _split_section(report: QualityReport, split: SplitQuality) -> list[str]:
    scores = [[f"`{mode}`", *map(score_cell, scores.values())] for mode, scores in split.scores.items()]
    differences = [
        [str(d), *(_marked(e, bold=split.is_beyond_noise(e)) for e in d.scores.values())] for d in split.differences
    ]
    tables = [*_table(["mode", *report.measures], scores), ""]
    if differences:
        tables += [*_table(["difference", *report.measures], differences), ""]
    return [f"## {str(split)[:1].upper()}{str(split)[1:]}", "", *tables]


def _marked(difference: Estimate, *, bold: bool) -> str:
    cell = difference_cell(difference)
    return f"**{cell}**" if bold else cell


def _missed_section(report: QualityReport) -> list[str]:
    """The questions that some mode missed, with the rank in each mode."""
    missed = [o for o in report.outcomes if any(o.is_missed(mode, TOP) for mode in report.modes)]
    if not missed:
        return []
    more = (
        [f"And {len(missed) - _MOST_MISSED:,} more, which the JSON file names.", ""]
        if len(missed) > _MOST_MISSED
        else []
    )
    return [
        "",
        f"## Questions for which a mode has no relevant document among the first {TOP}",
        "",
        f"The rank of the first relevant document; a dash where it is beyond {report.depth}.",
        "",
        *_table(["question", "split", *report.modes], [_missed_row(o, report) for o in missed[:_MOST_MISSED]]),
        *more,
    ]


def _missed_row(outcome: Outcome, report: QualityReport) -> list[str]:
    ranks = [outcome.found[mode].rank for mode in report.modes]
    return [_escape(outcome.question), outcome.split, *("-" if rank is None else str(rank) for rank in ranks)]


def _escape(text: str) -> str:
    """A text inside a table's cell."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def _ids(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_MOST_IDS]) + (", ..." if len(ids) > _MOST_IDS else "")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(headings), _row(["---"] * len(headings)), *map(_row, rows)]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
