r"""Kinds of index compared as they are served: the records of `tritonrag bench`, one for each index, as one table.

    python -m tritonrag_perf.served_kinds RECORD.json... [--index NAME=DIR]... --output docs/benchmarks

A record's NAME is that of its file without `.json`, and ends in size and kind: retrieve-100k-hnsw. `--index NAME=DIR` is the index
that was measured: its manifest tells the exact size, recall@10 and the point at which it was searched. All of it, by bash, from an
index SOURCE of real passages:

    python -c 'from pathlib import Path; from tritonrag_perf.corpus import questions_of_index as questions
    print(*questions(Path("SOURCE"), count=500, seed=0).texts, sep="\n")' > questions.txt
    export TRITONRAG_RETRIEVER_CACHE_BYTES=0 TRITONRAG_RETRIEVER_NUM_PASSAGES=10
    indexes=()
    for size in 10k 100k 1M; do
      kinds=sq8,hnsw,ivf_flat,ivf_sq8,ivf_pq,ivf_rabitq
      [ $size = 1M ] || kinds=flat,$kinds
      python -m tritonrag_perf.scaled_index --index SOURCE --rows $size --kinds $kinds --mode dense --output scaled/$size
      for kind in ${kinds//,/ }; do
        tritonrag bench --index scaled/$size/$kind --questions questions.txt --model retrieve --clients 1 --clients 32 \
          --rounds 2 --window-s 1.5 --no-plot --output records --name retrieve-$size-$kind
        indexes+=(--index retrieve-$size-$kind=scaled/$size/$kind)
      done
    done
    python -m tritonrag_perf.served_kinds records/*.json "${indexes[@]}" --output docs/benchmarks

The retriever keeps no answers there: the same 500 questions, asked over and over, would measure its cache. It returns ten passages
where a request does not say, because the recall is that of ten.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.format import KINDS
from tritonrag_backends.index.store import read_current
from tritonrag_client.contract import RETRIEVE, RETRIEVER
from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_perf.machine import Machine
from tritonrag_perf.served_kinds_report import ServedKind, ServedLoad, write_served_kinds
from tritonrag_perf.sizes import parse_size
from tritonrag_perf.spread import Spread

_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in KINDS}


def read_record(path: Path, index: Path | None = None) -> ServedKind:
    """What `tritonrag bench` recorded of `retrieve` over one index. `index` None: the size is that in the name, recall is not told.

    Raises BadRequestError where the file is no such record, its name does not end in size and kind or the index is of another kind;
    NotFoundError and InternalError where the index can't be read.
    """
    kind, passages = _named(path.stem)
    point = None
    if index is not None:
        manifest = read_current(index)
        if {segment.kind for segment in manifest.segments} != {kind} or len(manifest.segments) > 1:
            raise BadRequestError(f"the record {path.stem} is named after kind {kind}, and {index} is no segment of it")
        passages, point = manifest.counts.passages, manifest.segments[0].point
    try:
        record = json.loads(path.read_bytes())
        return ServedKind(
            name=path.stem,
            kind=kind,
            passages=passages,
            point=point,
            date=str(record["date"]),
            machine=str(Machine(**record["machine"])),
            server=f"Triton {record['server_version']}, perf_analyzer {record['perf_analyzer_version']}",
            questions=str(record["questions"]),
            loads=_loads(path, record["rounds"]),
            failures=tuple(str(failure["reason"]) for failure in record["failures"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadRequestError(
            f"{path} is no record of `tritonrag bench` ({error!r}); give the .json file that it wrote"
        ) from error


def _named(name: str) -> tuple[Kind, int]:
    """The kind and the number of passages in a record's name."""
    *_, size, kind = "", "", *name.split("-")
    if kind not in _KINDS:
        raise BadRequestError(
            f"the record's name {name!r} does not end in size and kind; name it as retrieve-100k-hnsw"
        )
    return _KINDS[kind], parse_size(size)


def _loads(path: Path, rounds: Iterable[Mapping[str, Any]]) -> tuple[ServedLoad, ...]:
    by_clients: dict[int, list[Mapping[str, Any]]] = {}
    for one in rounds:
        if one["load"]["model"] == RETRIEVE:
            by_clients.setdefault(int(one["load"]["concurrency"]), []).append(one)
    if not by_clients:
        raise BadRequestError(f"{path} has no figures of `retrieve`; measure with --model retrieve")
    return tuple(_load(clients, by_clients[clients]) for clients in sorted(by_clients))


def _load(clients: int, rounds: Sequence[Mapping[str, Any]]) -> ServedLoad:
    stages = [{stage["model"]: stage for stage in one["stages"]} for one in rounds]
    measured = [one["measurement"] for one in rounds]
    return ServedLoad(
        clients=clients,
        rounds=len(rounds),
        questions_per_s=Spread.of(float(one["requests_per_s"]) for one in measured),
        p50_ms=Spread.of(float(one["latency"]["p50_ms"]) for one in measured),
        p99_ms=Spread.of(float(one["latency"]["p99_ms"]) for one in measured),
        retriever_ms=Spread.of(float(stage[RETRIEVER]["infer_ms"]) for stage in stages),
        failed=sum(int(stage[RETRIEVE]["failures"]) for stage in stages),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and the error's message where something is wrong."""
    options = _parser().parse_args(argv)
    try:
        paths = _run(options)
    except RagError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)  # noqa: T201 - a command's result


def _run(options: argparse.Namespace) -> list[Path]:
    indexes = dict(map(_named_index, options.index))
    unknown = indexes.keys() - {path.stem for path in options.records}
    if unknown:
        raise BadRequestError(f"no record is named {', '.join(sorted(unknown))}; give --index the name of one")
    served = [read_record(path, indexes.get(path.stem)) for path in options.records]
    return write_served_kinds(served, options.output, name=options.name, how=__doc__, plot=options.plot)


def _named_index(text: str) -> tuple[str, Path]:
    name, equals, directory = text.partition("=")
    if not (name and equals and directory):
        raise BadRequestError(f"--index is {text!r}; give the record's name and the folder as NAME=DIR")
    return name, Path(directory)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.served_kinds", description=__doc__.partition("\n")[0])
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD.json", help="what `tritonrag bench` wrote")
    parser.add_argument("--index", action="append", default=[], metavar="NAME=DIR", help="the index of a record")
    parser.add_argument("--output", type=Path, required=True, help="folder for the record")
    parser.add_argument("--name", default="index-kinds-served", help="file name of the record, without ending")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True)
    return parser


if __name__ == "__main__":
    main()
