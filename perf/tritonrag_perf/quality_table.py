"""Retrieval quality as tables on a terminal: a row for each measure, so that they fit into 80 columns."""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from tritonrag_perf.bootstrap import Estimate
from tritonrag_perf.quality import QualityReport, SplitQuality
from tritonrag_perf.quality_report import difference_cell, score_cell

_WIDTH = 22  # of a difference and its star: so both tables' columns stand below each other


def terminal_tables(report: QualityReport) -> Iterator[Table]:
    """For each split the modes and, where there are several modes, their differences."""
    for split in report.splits:
        yield _scores(report, split)
        if split.differences:
            yield _differences(report, split)


def _scores(report: QualityReport, split: SplitQuality) -> Table:
    table = _table(str(split), *split.scores)
    for measure in report.measures:
        table.add_row(measure, *(f"{score_cell(scores[measure])} " for scores in split.scores.values()))
    return table


def _differences(report: QualityReport, split: SplitQuality) -> Table:
    table = _table("", *map(str, split.differences))
    for measure in report.measures:
        table.add_row(measure, *(_cell(split, difference.scores[measure]) for difference in split.differences))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True, min_width=_WIDTH)
    return table


def _cell(split: SplitQuality, difference: Estimate) -> Text:
    """A difference, with a star where it is beyond noise."""
    beyond = split.is_beyond_noise(difference)
    return Text(difference_cell(difference) + (" *"[beyond]), style="bold" if beyond else "")
