"""How kinds of segment compare: building, size, recall and speed. `python -m tritonrag_perf.index_kinds`.

In this process and on one thread, so that what is measured is the search alone: `docs/benchmarks/index-kinds.md` was made so.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import faiss
import numpy as np

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.kinds import use_blas_when_faster
from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_perf.index_kinds_measuring import KindFigures, Plan, measure_kinds
from tritonrag_perf.index_kinds_report import KindsRecord, write_kinds_record
from tritonrag_perf.index_kinds_vectors import COSINE, Float32Array, read_vectors, write_set
from tritonrag_perf.machine import Machine
from tritonrag_perf.plot import require_matplotlib

_TUNING_QUERIES = 512  # as many as an index is tuned with
_FEWEST_QUERIES = 64


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and the error's message where something is wrong; sizes that were measured stay written."""
    options = _parser().parse_args(argv)
    try:
        paths = _run(options, shlex.join(["python", "-m", "tritonrag_perf.index_kinds", *(argv or sys.argv[1:])]))
    except RagError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)  # noqa: T201 - a command's result


def _run(options: argparse.Namespace, command: str) -> list[Path]:
    if options.plot:
        require_matplotlib()
    vectors, queries = read_vectors(options.vectors), read_vectors(options.queries)
    plan = _plan(options, queries, vectors.shape[1])
    use_blas_when_faster(vectors.shape[1])
    sizes: list[tuple[KindFigures, ...]] = []
    paths: list[Path] = []
    for rows in options.rows:
        with TemporaryDirectory(dir=options.work, prefix="index-kinds-") as folder:
            values = write_set(vectors, rows, Path(folder) / "vectors.npy", seed=options.seed)
            sizes.append(tuple(measure_kinds(values, Path(folder), plan, _show)))
        record = _record(options, plan, command, sizes, stored=len(vectors))
        paths = write_kinds_record(record, options.output, name=options.name, plot=options.plot)
    return paths


def _plan(options: argparse.Namespace, queries: Float32Array, dims: int) -> Plan:
    if queries.shape[1] != dims or len(queries) < _FEWEST_QUERIES:
        raise BadRequestError(f"queries are {list(queries.shape)}; give {_FEWEST_QUERIES} or more of {dims} values")
    tuning = np.ascontiguousarray(queries[::2][:_TUNING_QUERIES])
    return Plan(
        kinds=tuple(options.kinds),
        target=options.target,
        build_threads=options.build_threads,
        rounds=options.rounds,
        slice_s=options.slice_s,
        tuning_queries=tuning,
        queries=np.ascontiguousarray(queries[1::2][: options.count]),
    )


def _record(
    options: argparse.Namespace, plan: Plan, command: str, sizes: Sequence[tuple[KindFigures, ...]], *, stored: int
) -> KindsRecord:
    more = f"; a set of more has variants of them at cosine {COSINE:g}" if max(options.rows) > stored else ""
    return KindsRecord(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=Machine.this(),
        faiss_version=faiss.__version__,
        command=command,
        vectors=f"{stored:,} of {plan.queries.shape[1]} values from {options.vectors.name}{more}",
        queries=f"{len(plan.tuning_queries)} to tune with, {len(plan.queries)} to measure, from {options.queries.name}",
        target=plan.target,
        rounds=plan.rounds,
        build_threads=plan.build_threads,
        sizes=tuple(sizes),
    )


def _show(what: str) -> None:
    if sys.stderr.isatty():
        print(what, file=sys.stderr)  # noqa: T201 - progress of a command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.index_kinds", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vectors", type=Path, required=True, help="stored vectors, .npy FP32 [rows, dims]")
    parser.add_argument("--queries", type=Path, required=True, help="questions' vectors, .npy FP32 [n, dims]")
    parser.add_argument("--rows", type=_numbers, default=[10_000, 100_000, 1_000_000], help="sizes, with commas")
    parser.add_argument("--output", type=Path, required=True, help="folder for the record")
    parser.add_argument("--name", default="index-kinds", help="file name of the record, without ending")
    parser.add_argument("--kinds", nargs="+", choices=get_args(Kind), default=list(get_args(Kind)))
    parser.add_argument("--target", type=float, default=0.95, help="recall@10 to tune to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slice-s", type=float, default=0.3, help="how long a speed is measured in each round")
    parser.add_argument("--count", type=int, default=512, help="questions to measure with")
    parser.add_argument("--build-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, help="folder for temporary files: 6 KB a vector of 384 values")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True)
    return parser


def _numbers(text: str) -> list[int]:
    numbers = [int(number) for number in text.split(",")]
    if min(numbers) < 1:
        raise ValueError(text)
    return numbers


if __name__ == "__main__":
    # Unwinding removes the temporary files, which are gigabytes; dying on the spot would leave them.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    main()
