"""Run the parts one after the other, write a record of each, `gpu.json` of all, and the page.

    python -m tritonrag_perf.gpu --out DIR [--parts encoder,faiss,server,llm] [--device auto|cpu|cuda] [--scale full|tiny]

`perf/gpu.sh` makes the environment for it on a bare machine. Exits with 1 where a part failed; the others are done all the same.
"""

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tritonrag_client.errors import BadRequestError, NotFoundError, RagError
from tritonrag_perf.gpu.card import find_card
from tritonrag_perf.gpu.child import run_child
from tritonrag_perf.gpu.collate import write_records
from tritonrag_perf.gpu.part import add_wishes
from tritonrag_perf.gpu.sheet import PARTS, Device, Header, PartName, Sheet, read_json, write_json

_PREPARE_S = 600.0
_KILLED = "it ran past its {seconds:g} s and was ended; the figures are those until then"


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(argv)
    try:
        ok = _run(options, command_of(options))
    except RagError as error:
        sys.exit(str(error))
    sys.exit(0 if ok else 1)


def _run(options: argparse.Namespace, command: str) -> bool:
    device = choose_device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="tritonrag-gpu-")
        if options.work is None
        else nullcontext(options.work) as at
    ):
        work = Path(at)
        embedder, index = options.embedder or work / "embedder", work / "index"
        shared = ["--embedder", str(embedder), "--index", str(index), "--scale", options.scale]
        _tell("preparing the embedder and an index")
        if run_child(["tritonrag_perf.gpu.prepare", *shared], _PREPARE_S) != 0:
            raise BadRequestError("the embedder or the index could not be made; what stands above says why")
        ok = True
        for part in options.parts:
            _tell(f"part {part}")
            arguments = [part, *shared, "--device", device, "--work", str(work / part), *_handed_on(options)]
            record = _run_part(part, arguments, options, device, command)
            write_records([record], options.out, page=options.page)
            _tell(f"part {part}: {record['status']}")
            ok &= record["status"] == "ok"
    return ok


def command_of(options: argparse.Namespace) -> str:
    """How to do it again, without the paths of one machine."""
    given = ["--wheels", "DIR", "--out", "DIR", "--parts", ",".join(options.parts), *_handed_on(options)]
    given += ["--device", options.device] if options.device != "auto" else []
    return shlex.join(["perf/gpu.sh", *given, *(["--scale", options.scale] if options.scale != "full" else [])])


def choose_device(wanted: str) -> Device:
    """`auto` is the GPU where there is one. Raises NotFoundError where one is asked for that is not there."""
    if wanted == "cpu":
        return "cpu"
    if find_card() is not None:
        return "cuda"
    if wanted == "cuda":
        raise NotFoundError("--device is cuda, and nvidia-smi shows no GPU; give --device cpu, or go where one is")
    return "cpu"


def _run_part(
    part: PartName, arguments: Sequence[str], options: argparse.Namespace, device: Device, command: str
) -> dict[str, Any]:
    """Its record, whatever became of it."""
    path: Path = options.out / f"{part}.json"
    path.unlink(missing_ok=True)  # else a part that dies at once would seem to have what an earlier run found
    # The part plans with less than it has, so that it ends by itself where it can.
    own = ["--record", str(path), "--seconds", f"{0.9 * options.seconds:g}", "--command", command]
    status = run_child(["tritonrag_perf.gpu.part", *arguments, *own], options.seconds)
    if not path.is_file():
        header = Header(part=part, device=device, scale=options.scale, command=command, card=None)
        Sheet(path, header).end(f"it ended with status {status} before it measured anything")
    record = read_json(path)
    if record["status"] == "running":
        ended = _KILLED.format(seconds=options.seconds) if status is None else f"it ended with status {status}"
        record |= {"status": "failed", "error": ended}
        write_json(path, record)
    return record


def _handed_on(options: argparse.Namespace) -> list[str]:
    handed = ["--llm", options.llm] if options.llm else []
    handed += ["--encoder-on", options.encoder_on] if options.encoder_on else []
    return handed + (["--rows", *options.rows] if options.rows else [])


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command's progress


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the records")
    parser.add_argument("--page", type=Path, help="page to write too, with the records beside it")
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help=f"with commas, of {','.join(PARTS)}")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--embedder", type=Path, help="folder of an embedder that has an FP16 graph; else one is exported"
    )
    parser.add_argument("--work", type=Path, help="folder for models and indexes, which stays; else a temporary one")
    parser.add_argument("--seconds", type=float, default=480, help="how long each part may take")
    add_wishes(parser)
    return parser


def _parts(text: str) -> list[PartName]:
    names: dict[str, PartName] = {part: part for part in PARTS}
    if not text or not set(text.split(",")) <= set(names):
        raise argparse.ArgumentTypeError(f"{text!r}: give some of {','.join(PARTS)}")
    return [names[name] for name in dict.fromkeys(text.split(","))]


if __name__ == "__main__":
    # Unwinding ends the part that runs and removes the temporary folder, which may hold 16 GB.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    main()
