"""Retrieval quality as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from tritonrag_perf.quality import QualityRecord, SplitQuality

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GROUP = 0.8  # of the distance between two measures, taken by their bars


def write_quality_plot(path: Path, record: QualityRecord) -> None:
    """A panel for each split, a group of bars for each measure, a bar for each mode; whiskers are the 95 % intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, slow to import, wanted only here
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    splits = record.report.splits
    figure = Figure(figsize=(10, 0.4 + 3.2 * len(splits)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(splits), 1, sharey=True, squeeze=False)
    for axes, split in zip(panels[:, 0], splits, strict=True):
        _panel(axes, split, record.report.measures)
    panels[0, 0].legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars, which reach to the top
    figure.suptitle(f"{record.questions}, {record.index}", fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _panel(axes: "Axes", split: SplitQuality, measures: tuple[str, ...]) -> None:
    width = _GROUP / len(split.scores)
    for number, (mode, scores) in enumerate(split.scores.items()):
        estimates = [scores[measure] for measure in measures]
        whiskers = [[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]]
        places = [group + number * width for group in range(len(measures))]
        axes.bar(places, [e.mean for e in estimates], width, yerr=whiskers, capsize=3, label=mode)
    middle = (len(split.scores) - 1) * width / 2
    axes.set_xticks([group + middle for group in range(len(measures))], measures)
    axes.set_ylim(0, 1.02)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_title(str(split), fontsize="medium")
