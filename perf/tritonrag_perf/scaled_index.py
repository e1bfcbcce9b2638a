"""Indexes of any size out of one that is there, one of each kind over the same passages, for tests of scale.

    python -m tritonrag_perf.scaled_index --index SOURCE --rows 1M --kinds hnsw,ivf_pq --output DIR
    python -m tritonrag_perf.scaled_index --like DIR/hnsw --kinds ivf_sq8 --output DIR

make DIR/<kind>, indexes like any other: `tritonrag index verify` checks them, `tritonrag serve` serves them. Their passages are
SOURCE's own, then replicas of them with noise in text and vector (`replicas.py`); fewer than SOURCE has: some of its own, spread
evenly. All are tuned to SOURCE's held-out queries. Every kind but the first shares the files of the first by hard links, where the
file system has these, and has its own `ann.faiss` and manifest; the second form adds kinds beside an index that was made before.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.format import ANN_FILE, KINDS, MODES, VECTOR_TYPES
from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_perf.scaled_kinds import BuiltKind, build_kinds, build_siblings
from tritonrag_perf.sizes import parse_size


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and the error's message where something is wrong; kinds that were made stay."""
    options = _parser().parse_args(argv)
    heading = _HEADING
    try:
        for built in _built(options):
            _show("")
            print(heading + _row(built), flush=True)  # noqa: T201 - a command's result; the next kind may take minutes
            heading = ""
    except RagError as error:
        sys.exit(str(error))


def _built(options: argparse.Namespace) -> Iterator[BuiltKind]:
    if options.like is not None:
        return build_siblings(
            options.like,
            options.output,
            kinds=options.kinds,
            mode=options.mode,
            recall=options.recall,
            progress=_show_progress,
        )
    if options.rows is None:
        raise BadRequestError("--index says whose passages to take; say how many with --rows")
    return build_kinds(
        options.index,
        options.output,
        rows=parse_size(options.rows),
        kinds=options.kinds,
        vectors=options.vectors,
        mode=options.mode,
        recall=options.recall,
        seed=options.seed,
        progress=_show_progress,
    )


_HEADING: Final = (
    "| kind | passages | build s | effort | re-scored | recall@10 | queries | MiB | of these ann.faiss |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def _row(built: BuiltKind) -> str:
    record = built.segment
    point, files = record.point, record.files
    total = sum(file.bytes for file in files.values()) + sum(file.bytes for file in built.manifest.shared_files)
    cells = [
        record.kind,
        f"{record.rows:,}",
        f"{built.build_s:.1f}",
        str(point.effort),
        str(point.rescore),
        "-" if point.recall_at_10 is None else f"{point.recall_at_10:.4f}",
        str(point.queries),
        f"{total / 2**20:,.1f}",
        f"{files[ANN_FILE].bytes / 2**20:,.1f}" if ANN_FILE in files else "-",
    ]
    return f"| {' | '.join(cells)} |"


def _show_progress(what: str, rows: int) -> None:
    _show(f"{what}: {rows:,} passages")


def _show(line: str) -> None:
    """Replace what stands on the terminal's last line."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.scaled_index", description=(__doc__ or "").partition("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--index", type=Path, help="index whose passages are taken and replicated")
    source.add_argument("--like", type=Path, help="index whose files are shared as they are")
    parser.add_argument("--rows", help="passages: 10000, 10k, 1M (with --index)")
    parser.add_argument("--kinds", type=_kinds, required=True, help=f"with commas, of {','.join(KINDS)}")
    parser.add_argument("--output", type=Path, required=True, help="folder for the indexes, one for each kind")
    parser.add_argument("--vectors", choices=VECTOR_TYPES, default="fp32", help="how vectors are stored (with --index)")
    parser.add_argument("--mode", choices=MODES, help="how a request that does not say is searched; as the source is")
    parser.add_argument("--recall", type=float, help="recall@10 to tune to; what was wanted of the source")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _kinds(text: str) -> list[Kind]:
    kinds: dict[str, Kind] = {kind: kind for kind in KINDS}
    names = text.split(",")
    if len(set(names)) < len(names) or not set(names) <= set(kinds):
        raise argparse.ArgumentTypeError(f"{text!r}: give some of {','.join(KINDS)}, each once")
    return [kinds[name] for name in names]


if __name__ == "__main__":
    main()
