"""What a server held over a long run, as a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tritonrag_perf.soak_report import MIB, Soak
from tritonrag_perf.soak_samples import Held

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS: Final[tuple[tuple[str, Callable[[Held], float]], ...]] = (
    ("private memory, MiB", lambda held: held.private_bytes / MIB),
    ("threads", lambda held: held.threads),
    ("descriptors", lambda held: held.descriptors),
)


def write_soak_plot(path: Path, soak: Soak) -> None:
    """A panel each for memory, threads, descriptors and shared memory over the minutes; the warm-up is grey."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2).ravel()
    minutes = [sample.at_s / 60 for sample in soak.samples]
    for axes, (title, of) in zip(panels, _PANELS, strict=False):
        for process in soak.samples[0].processes:
            axes.plot(minutes, [of(sample.processes[process]) for sample in soak.samples], label=process, linewidth=1)
        _finish(axes, title, soak)
    panels[-1].plot(minutes, [sample.region_bytes / MIB for sample in soak.samples], linewidth=1, label="MiB")
    panels[-1].plot(minutes, [sample.regions for sample in soak.samples], linewidth=1, label="regions")
    _finish(panels[-1], "shared memory", soak)
    panels[-1].legend(fontsize="x-small")
    panels[0].legend(fontsize="x-small", ncols=2)
    figure.suptitle(str(soak.machine), fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _finish(axes: "Axes", title: str, soak: Soak) -> None:
    axes.axvspan(0, soak.warm_up_s / 60, color="0.93")
    axes.set_title(title)
    axes.set_xlabel("minutes")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
