"""A run side by side as a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tritonrag_perf.peers.record import Sample, SideBySide

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_plot(path: Path, record: SideBySide) -> None:
    """Questions per second and p99 over the number of clients; lines are medians, bands the range over the rounds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, slow to import, wanted only here
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    rate, latency = figure.subplots(1, 2)
    _panel(rate, record, "questions per second", lambda s: s.questions_per_s)
    _panel(latency, record, "p99 latency, ms", lambda s: s.p99_ms)
    latency.set_yscale("log")
    rate.set_ylim(bottom=0)
    figure.legend(*rate.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    figure.suptitle(str(record.machine), fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _panel(axes: "Axes", record: SideBySide, title: str, figure: Callable[[Sample], float]) -> None:
    for number, endpoint in enumerate(record.endpoints()):
        spreads = {n: s for n in record.clients() if (s := record.spread(endpoint, n, figure))}
        clients, colour = list(spreads), f"C{number}"
        axes.plot(clients, [s.median for s in spreads.values()], marker="o", color=colour, label=endpoint)
        low, high = [s.low for s in spreads.values()], [s.high for s in spreads.values()]
        axes.fill_between(clients, low, high, alpha=0.2, color=colour)
    axes.set_xscale("log", base=2)
    axes.set_xticks(record.clients(), [str(n) for n in record.clients()])
    axes.set_xlabel("clients")
    axes.set_title(title)
