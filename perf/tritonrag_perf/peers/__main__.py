"""Peers and our server side by side: `python -m tritonrag_perf.peers --index DIR --output DIR`.

    python -m tritonrag_perf.peers --index DIR --output DIR [--peers fastapi_ort fastapi_st mosec_ort] [--clients 1 4 16 64]
        [--rounds 5] [--seconds 10]

Each peer needs its environment first: `make peer NAME=fastapi_ort`. Writes NAME.json, NAME.md and NAME.png.
docs/benchmarks/peers.md tells what is done.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tritonrag_client.errors import RagError
from tritonrag_perf.corpus import QuestionSet, questions_of_index
from tritonrag_perf.machine import Machine
from tritonrag_perf.peers.catalog import PEERS, peer_named
from tritonrag_perf.peers.checking import Oracle
from tritonrag_perf.peers.contenders import Contender, OurContender, PeerContender
from tritonrag_perf.peers.export import Exported, export
from tritonrag_perf.peers.plot import write_plot
from tritonrag_perf.peers.record import SideBySide
from tritonrag_perf.peers.report import write_record
from tritonrag_perf.peers.running import Plan, Results, run
from tritonrag_perf.plot import require_matplotlib
from tritonrag_perf.sweep import exit_on_signal


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Ends in status 1 where something is wrong or was not measured; what was measured is written then too."""
    options = _parser().parse_args(argv)
    try:
        record, paths = _run(options)
    except RagError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)  # noqa: T201 - a command's result
    if record.failures:
        sys.exit("\n".join(f"not measured: {one.name}, round {one.round + 1}: {one.reason}" for one in record.failures))


def _run(options: argparse.Namespace) -> tuple[SideBySide, list[Path]]:
    if options.plot:
        require_matplotlib()
    named = [peer_named(name) for name in options.peers]
    variants = [variant for peer in named for variant in (peer.variants() if options.tune else [peer])]
    peers = [(peer, peer.python(options.environments)) for peer in variants]
    questions = questions_of_index(options.index, count=options.count, seed=options.seed)
    plan = Plan(
        questions=questions.texts,
        k=options.k,
        clients=tuple(options.clients),
        rounds=options.rounds,
        warm_up_s=options.warm_up_s,
        seconds=options.seconds,
    )
    with tempfile.TemporaryDirectory(prefix="tritonrag-peers-") as folder:
        data, logs = Path(folder) / "data", Path(folder)
        _say("exporting the index")
        exported = export(options.index, options.embedder, data, kind=options.kind, recall_at_10=options.recall)
        contenders: list[Contender] = [
            PeerContender(peer=p, python=python, data=data, logs=logs) for p, python in peers
        ]
        contenders += [OurContender.of(options.index, options.embedder)] if options.ours else []
        results = run(contenders, Oracle(data, questions.texts, options.k), plan, _say)
    record = _record(options, questions, exported, results)
    picture = options.output / f"{options.name}.png"
    plot = options.plot and bool(record.samples)
    paths = write_record(
        record, options.output, name=options.name, title=options.title, plot=picture.name if plot else None
    )
    if plot:
        write_plot(picture, record)
        paths.append(picture)
    return record, paths


def _record(options: argparse.Namespace, questions: QuestionSet, exported: Exported, results: Results) -> SideBySide:
    effort = f" with efSearch {exported.ef_search}" if exported.ef_search else ""
    return SideBySide(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        command=_command(options),
        questions=str(questions),
        passages=exported.passages,
        kind=exported.kind + effort,
        k=options.k,
        samples=tuple(results.samples),
        starts=tuple(results.starts),
        qualities=tuple(results.qualities),
        failures=tuple(results.failures),
    )


def _command(options: argparse.Namespace) -> str:
    """How to do it again, without the paths of one machine."""
    given = {
        "peers": " ".join(options.peers),
        "clients": " ".join(map(str, options.clients)),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "warm-up-s": options.warm_up_s,
        "count": options.count,
        "seed": options.seed,
        "k": options.k,
        "kind": options.kind,
        "recall": options.recall,
    }
    switches = [*(["--tune"] if options.tune else []), *([] if options.ours else ["--no-ours"])]
    words = [*(f"--{name} {value}" for name, value in given.items()), *switches]
    return f"python -m tritonrag_perf.peers --index DIR --output DIR {' '.join(words)}"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)  # noqa: T201 - progress of a command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument(
        "--environments", type=Path, default=Path(".tritonrag/peers"), help="where `make peer` puts them"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the record")
    parser.add_argument("--name", default="peers-measured", help="file name of the record, without ending")
    parser.add_argument("--title", default="Peers side by side", help="heading of the page")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), help=f"some of {', '.join(PEERS)}")
    parser.add_argument("--tune", action="store_true", help="measure each peer with other settings too")
    parser.add_argument("--ours", action=argparse.BooleanOptionalAction, default=True, help="measure our server too")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each window")
    parser.add_argument("--warm-up-s", type=float, default=3.0, help="before each window")
    parser.add_argument("--count", type=int, default=500, help="questions to draw from the index")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--k", type=int, default=10, help="passages a question")
    parser.add_argument("--kind", choices=["auto", "flat", "hnsw"], default="auto", help="of the peers' index")
    parser.add_argument("--recall", type=float, default=0.97, help="recall@10 that a graph is set to reach")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True)
    return parser


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, exit_on_signal
    )  # unwinding ends the servers; dying on the spot would leave them running
    main()
