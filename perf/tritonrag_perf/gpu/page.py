"""`docs/benchmarks/gpu.md` from the records of the parts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tritonrag_perf.gpu.sheet import PartName

_TITLE: Final = "# On a GPU"
COMMAND: Final = "perf/gpu.sh --wheels DIR --out DIR --page docs/benchmarks/gpu.md"
_HOW: Final = f"""\
    {COMMAND}

on a machine with a GPU; [`perf/gpu-wheels.txt`](../../perf/gpu-wheels.txt) says which wheels go into DIR, and how."""
_NOT_RUN: Final = f"{_TITLE}\n\nNot run yet. To run it:\n\n{_HOW}\n"

Row = Mapping[str, Any]
Cell = Callable[[Row], str]
Columns = Sequence[tuple[str, Cell]]


def render(parts: Sequence[Row]) -> str:
    """The page. Parts that were not run on a GPU at full scale are left out; where none was, it says only that."""
    shown = [part for part in parts if is_shown(part)]
    if not shown:
        return _NOT_RUN
    sections = [line for part in shown for line in _section(part)]
    missing = [name for name in _HEADINGS if name not in {part["part"] for part in shown}]
    not_run = [f"Not run yet: {', '.join(missing)}.", ""] if missing else []
    return "\n".join([_TITLE, "", "Measured with", "", _HOW, "", *not_run, *sections])


def is_shown(part: Row) -> bool:
    """Whether its figures say something of a GPU."""
    return bool(part["device"] == "cuda" and part["scale"] == "full")


def _section(part: Row) -> list[str]:
    card = part["card"]
    versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    lines = [f"## {_HEADINGS[part['part']]}", ""]
    if part["status"] != "ok":
        lines += [f"**This part failed.** {part['error'] or 'A check below did not hold.'}", ""]
    on = f"{card['name']}, {card['memory_mib']:,} MiB, driver {card['driver']}, CUDA {card['cuda']}. {part['machine']}"
    lines += [f"{part['date']}, {part['seconds']:.0f} s. {on}. {versions}.", "", f"    {part['command']}", ""]
    for name, rows in part["tables"].items():
        lines += [*_table(_COLUMNS[name], rows), ""]
    return [*lines, *(f"- {note}" for note in part["notes"]), *([""] if part["notes"] else []), *_checks(part), ""]


def _checks(part: Row) -> list[str]:
    """How many held, and those that did not; the JSON has all of them."""
    failed = [check for check in part["checks"] if not check["ok"]]
    held = len(part["checks"]) - len(failed)
    told = [f"{held} of {len(part['checks'])} checks held."]
    if not failed:
        return told
    columns = (("failed check", _text("name")), ("found", _text("found")), ("wanted", _text("wanted")))
    return [*told, "", *_table(columns, failed)]


def _table(columns: Columns, rows: Sequence[Row]) -> list[str]:
    cells = [[heading for heading, _ in columns], ["---"] * len(columns)]
    cells += [[cell(row) for _, cell in columns] for row in rows]
    return [f"| {' | '.join(row)} |" for row in cells]


def _text(name: str) -> Cell:
    return lambda row: str(row[name])


def _number(name: str, digits: int = 0, *, unit: float = 1) -> Cell:
    return lambda row: "-" if row[name] is None else f"{row[name] / unit:,.{digits}f}"


def _spread(name: str, digits: int = 0, *, unit: float = 1) -> Cell:
    """Median (least to greatest)."""

    def cell(row: Row) -> str:
        median, low, high = (f"{row[name][part] / unit:,.{digits}f}" for part in ("median", "low", "high"))
        return f"{median} ({low} to {high})"

    return cell


_HEADINGS: Final[Mapping[PartName, str]] = {
    "encoder": "The encoder",
    "faiss": "FAISS",
    "server": "Triton",
    "llm": "A language model through `rag`",
}

_COLUMNS: Final[Mapping[str, Columns]] = {
    "roof": (
        ("measured peaks", _text("of")),
        ("TFLOP/s", _spread("flops", 1, unit=1e12)),
        ("GB/s", _spread("bandwidth", 0, unit=1e9)),
    ),
    "parity": (
        ("vectors against the CPU's fp32", _text("runtime")),
        ("texts", _number("texts")),
        ("least cosine", _number("min_cosine", 6)),
        ("mean", _number("mean_cosine", 6)),
    ),
    "speed": (
        ("runtime", _text("runtime")),
        ("tokens", _number("tokens")),
        ("batch", _number("batch")),
        ("texts/s", _spread("sequences_per_s")),
        ("TFLOP/s", _number("tflops", 1)),
        ("of the roofline", _number("of_roof", 3)),
    ),
    "kinds": (
        ("vectors", _number("rows")),
        ("kind", _text("kind")),
        ("effort", _number("effort")),
        ("recall@10", _number("recall_at_10", 4)),
        ("re-scored", _number("rescored_recall_at_10", 4)),
        ("left to the CPU", _number("left_to_cpu", 4)),
        ("build s", _number("build_s", 1)),
        ("MiB", _number("bytes", unit=2**20)),
        ("queries/s, batch 1", _spread("batch_1")),
        ("batch 32", _spread("batch_32")),
        ("batch 1,024", _spread("batch_1024")),
    ),
    "filters": (
        ("vectors", _number("rows")),
        ("kind", _text("kind")),
        ("share allowed", _number("share", 2)),
        ("queries", _number("queries")),
        ("returned by the device, not allowed", _number("not_allowed")),
        ("recall@10 among the allowed", _number("recall_at_10", 4)),
        ("left to the CPU", _number("left_to_cpu", 4)),
    ),
    "answers": (
        ("questions", _number("questions")),
        ("with the passages of profile cpu", _number("same_passages", 3)),
        ("greatest difference of a score", _number("score_difference", 6)),
    ),
    "served": (
        ("model", _text("model")),
        ("clients", _number("clients")),
        ("questions/s", _spread("questions_per_s")),
        ("p50 ms", _spread("p50_ms", 2)),
        ("p99 ms", _spread("p99_ms", 2)),
    ),
    "gpu_metrics": (
        ("metric of Triton", _text("name")),
        ("least", _number("least", 3)),
        ("greatest", _number("most", 3)),
    ),
    "streaming": (
        ("", _text("side")),
        ("answers at once", _number("clients")),
        ("prompt tokens", _number("prompt_tokens")),
        ("answer tokens", _number("answer_tokens")),
        ("first token ms", _spread("first_token_ms", 1)),
        ("tokens/s", _spread("tokens_per_s", 1)),
    ),
    "ratios": (
        ("`rag` against the engine itself", _text("what")),
        ("answers at once", _number("clients")),
        ("", _spread("value", 3)),
    ),
}
