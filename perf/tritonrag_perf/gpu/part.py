"""One part, in a process of its own: `python -m tritonrag_perf.gpu.part NAME ...`, started by `python -m tritonrag_perf.gpu`.

Exits with 0 where all checks held, with 1 where one failed or the part could not go on; the record says which.
"""

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from tritonrag_client.errors import RagError
from tritonrag_perf.gpu.card import find_card
from tritonrag_perf.gpu.sheet import PARTS, Device, Header, PartName, Scale, Sheet
from tritonrag_perf.sizes import parse_size

# Modules, not functions: each loads libraries that the others can do without.
_MODULES: Final[dict[PartName, str]] = {
    "encoder": "tritonrag_perf.gpu.encoder_part",
    "faiss": "tritonrag_perf.gpu.faiss_part",
    "server": "tritonrag_perf.gpu.server_part",
    "llm": "tritonrag_perf.gpu.llm_part",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What may be asked for beside device and scale; None and (): as the scale has it."""

    rows: tuple[int, ...] = ()
    llm: str | None = None
    encoder_on: Device | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a part has to work with. `embedder` and `index` are made; `work` is for its own files; `until_s` is a monotonic time."""

    sheet: Sheet
    device: Device
    scale: Scale
    work: Path
    embedder: Path
    index: Path
    until_s: float
    wishes: Wishes = Wishes()

    @property
    def is_tiny(self) -> bool:
        """Whether this is only to see that everything runs."""
        return self.scale == "tiny"

    @property
    def left_s(self) -> float:
        """Seconds that the part may still take."""
        return self.until_s - time.monotonic()

    def has_time_for(self, what: str, seconds: float) -> bool:
        """Whether that many seconds are left; where not, the record says what was left out."""
        if self.left_s >= seconds:
            return True
        self.sheet.note(f"left out for want of time: {what}")
        return False

    def tell(self, text: str) -> None:
        """Progress, for who watches the log."""
        print(f"  {text} ({self.left_s:.0f} s left)", file=sys.stderr, flush=True)  # noqa: T201 - a command's progress


def perform(run: Run, measure: Callable[[Run], None]) -> bool:
    """Do the part and end its record. Whether all went well; an error of any sort ends this part alone, and is recorded."""
    try:
        measure(run)
    except RagError as error:
        run.sheet.end(str(error))
    except Exception as error:  # noqa: BLE001 - the edge of a part: CUDA's, FAISS's and torch's own errors end up here
        traceback.print_exc()
        run.sheet.end(f"{type(error).__name__}: {error}")
    else:
        run.sheet.end()
        return not run.sheet.failed
    return False


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    options = parser().parse_args(argv)
    header = Header(
        part=options.part,
        device=options.device,
        scale=options.scale,
        command=options.command,
        card=find_card() if options.device == "cuda" else None,
    )
    run = Run(
        sheet=Sheet(options.record, header),
        device=options.device,
        scale=options.scale,
        work=options.work,
        embedder=options.embedder,
        index=options.index,
        until_s=time.monotonic() + options.seconds,
        wishes=Wishes(rows=tuple(map(parse_size, options.rows)), llm=options.llm, encoder_on=options.encoder_on),
    )
    options.work.mkdir(parents=True, exist_ok=True)
    measure: Callable[[Run], None] = import_module(_MODULES[options.part]).measure
    sys.exit(0 if perform(run, measure) else 1)


def parser() -> argparse.ArgumentParser:
    """The options of one part."""
    parser = argparse.ArgumentParser(prog="tritonrag_perf.gpu.part", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--record", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--work", type=Path, required=True, help="folder for this part's files")
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--seconds", type=float, required=True, help="how long the part may take")
    parser.add_argument("--command", default="", help="how the whole was started, for the record")
    add_wishes(parser)
    return parser


def add_wishes(parser: argparse.ArgumentParser) -> None:
    """The options that the whole command hands on to its parts."""
    parser.add_argument(
        "--scale", choices=["full", "tiny"], default="full", help="tiny: only to see that all of it runs"
    )
    parser.add_argument("--rows", nargs="+", default=[], metavar="N", help="faiss: numbers of vectors; 1M 10M")
    parser.add_argument("--llm", choices=["8b", "1b", "tiny"], help="llm: the model's size; full scale: 8b")
    parser.add_argument(
        "--encoder-on",
        choices=["cpu", "cuda"],
        help="server: where the encoder runs; on the GPU where there is one and ONNX Runtime's GPU build",
    )


if __name__ == "__main__":
    # Unwinding stops the servers that the part started.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    main()
