"""A sweep's figures as a picture."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.figures import Figures
from tritonrag_perf.measurement import Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def require_matplotlib() -> None:
    """Raises BadRequestError where matplotlib is not installed: better before an hour of measuring than after it."""
    if find_spec("matplotlib") is None:
        raise BadRequestError(
            "a plot needs matplotlib, which is not installed; `pip install 'tritonrag[perf]'`, or ask for no plot"
        )


def write_plot(path: Path, figures: Figures) -> None:
    """Two panels over the number of clients: questions per second, and latency; bars are medians, whiskers the range."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, slow to import, wanted only here
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    rate, latency = figure.subplots(1, 2)
    _panel(rate, figures, "questions per second", {"": lambda m: m.requests_per_s})
    _panel(latency, figures, "latency, ms", {"p50": lambda m: m.latency.p50_ms, "p99": lambda m: m.latency.p99_ms})
    latency.set_yscale("log")
    figure.suptitle(str(figures.machine), fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _panel(axes: "Axes", figures: Figures, title: str, series: dict[str, Callable[[Measurement], float]]) -> None:
    """One bar for each load and series, grouped by load."""
    loads = figures.loads()
    width = 0.8 / len(series)
    for number, (name, figure) in enumerate(series.items()):
        spreads = [figures.spread(load, figure) for load in loads]
        medians = [s.median for s in spreads]
        whiskers = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
        axes.bar([i + number * width for i in range(len(loads))], medians, width, yerr=whiskers, capsize=3, label=name)
    middle = (len(series) - 1) * width / 2
    labels = [str(load).replace(" at ", "\n").replace(", ", "\n") for load in loads]
    axes.set_xticks([i + middle for i in range(len(loads))], labels)
    axes.set_title(title)
    if len(series) > 1:
        axes.legend()
