"""Questions a second over the size of the index, as a picture."""

from pathlib import Path

from tritonrag_perf.scale_record import Scale


def write_scale_plot(path: Path, record: Scale) -> None:
    """A line for each number of clients; points are medians, whiskers the range."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, slow to import, wanted only here
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for clients in record.clients:
        found = [
            (one, record.served(one.name, clients, lambda sample: sample.questions_per_s)) for one in record.indexes
        ]
        points = [(index.passages, spread) for index, spread in found if spread]
        rates = [spread.median for _, spread in points]
        whiskers = [[s.median - s.low for _, s in points], [s.high - s.median for _, s in points]]
        label = f"{clients} client{'s' if clients > 1 else ''}"
        axes.errorbar([passages for passages, _ in points], rates, whiskers, marker="o", capsize=3, label=label)
    axes.set_xscale("log")
    axes.set_xticks([one.passages for one in record.indexes], [one.name for one in record.indexes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("passages")
    axes.set_title("questions per second")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(str(record.machine), fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})
