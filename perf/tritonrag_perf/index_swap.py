"""An index changes again and again under load: is every answer that of the version it names? `python -m tritonrag_perf.index_swap`.

Made-up documents of the embedder's dimension; clients ask `retriever` in mixed modes, tenants, filters and numbers of passages, and
each answer's ids, scores and passages are held to the bit to what the index library says that opened exactly that version. Starts a
`tritonrag serve` of its own, and writes a page.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_backends.index.format import EmbeddingRecord
from tritonrag_backends.index.store import read_current
from tritonrag_client.errors import InternalError
from tritonrag_perf.machine import Machine
from tritonrag_perf.process_use import ProcessUse, use_of
from tritonrag_perf.swap_changes import CHANGE_KINDS, ChangeKind, ChangingIndex
from tritonrag_perf.swap_corpus import make_requests
from tritonrag_perf.swap_load import Clients, RetrieverClient, Tally
from tritonrag_perf.swap_oracle import Oracle

REQUESTS: Final = 64
_TAKE_UP_S: Final = 30.0
_QUIET_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapResult:
    """What came of a run. `take_up_ms`: from the end of a change to the first answer of its version, asked for without a pause."""

    changes: Counter[ChangeKind]
    versions: int
    tally: Tally
    take_up_ms: list[float]
    elapsed_s: float


def change_under_load(
    index: ChangingIndex,
    url: str,
    *,
    cycles: int,
    clients: int,
    progress: Callable[[int], None] = lambda _: None,
) -> SwapResult:
    """Make `cycles` changes of an index that a server at `url` serves, each once the last is served, under the load of `clients`.

    Raises InternalError where a version is not served within 30 s.
    """
    requests = make_requests(REQUESTS, dim=read_current(index.directory).embedding.dim)
    oracle, changes, take_up_ms = Oracle(index.directory, requests), Counter[ChangeKind](), list[float]()
    oracle.learn(read_current(index.directory))
    probe, started_s = RetrieverClient(url, requests), time.monotonic()
    with Clients(url, requests, oracle, count=clients) as load:
        for cycle in range(cycles):
            before = read_current(index.directory).index_version
            changed = index.change()
            changes[changed.kind] += 1
            if changed.live.index_version != before:
                take_up_ms.append(_await_version(probe, changed.live.index_version))
            oracle.learn(changed.live)
            progress(cycle + 1)
    probe.close()
    return SwapResult(
        changes=changes,
        versions=oracle.versions,
        tally=load.tally,
        take_up_ms=take_up_ms,
        elapsed_s=time.monotonic() - started_s,
    )


def ask_quietly(index: ChangingIndex, url: str, *, clients: int, seconds: float) -> Tally:
    """The same load while nothing changes."""
    requests = make_requests(REQUESTS, dim=read_current(index.directory).embedding.dim)
    oracle = Oracle(index.directory, requests)
    oracle.learn(read_current(index.directory))
    with Clients(url, requests, oracle, count=clients) as load:
        threading.Event().wait(seconds)
    return load.tally


def _await_version(probe: RetrieverClient, version: int) -> float:
    started_s = time.monotonic()
    while probe.ask(0)[0] != version:
        if time.monotonic() - started_s > _TAKE_UP_S:
            raise InternalError(
                f"version {version} is live and not served after {_TAKE_UP_S:g} s; see the server's log"
            )
    return (time.monotonic() - started_s) * 1000


def main() -> None:
    """Run and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--poll-s", type=float, default=0.05, help="how often the server looks for a new version")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--output", type=Path, required=True, help="folder for index-swap.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="index-swap-") as folder:
        index = ChangingIndex(Path(folder) / "index", embedder=_embedder(options.embedder), seed=options.seed)
        index.build()
        with _served(index.directory, options.embedder, options.poll_s) as said:
            url = f"{said['host']}:{said['grpc_port']}"
            quiet = ask_quietly(index, url, clients=options.clients, seconds=_QUIET_S)
            uses = [use_of(said["triton_pid"])]
            result = change_under_load(
                index, url, cycles=options.cycles, clients=options.clients, progress=_tell(options.cycles)
            )
            uses.append(use_of(said["triton_pid"]))
    page = options.output / "index-swap.md"
    page.write_text("\n".join(page_lines(options, quiet, result, uses)) + "\n", encoding="utf-8")
    what = f"{page}: {result.tally.failures} failures, {result.tally.wrong} wrong answers"
    print(what, *result.tally.named, sep="\n")  # noqa: T201 - it is a command
    sys.exit(1 if result.tally.failures or result.tally.wrong else 0)


def _embedder(folder: Path) -> EmbeddingRecord:
    """The record of an index that the server will take for one of its embedder."""
    manifest = EmbedderManifest.load(folder, verify=False)
    return EmbeddingRecord(
        name=manifest.name, fingerprint=manifest.fingerprint, dim=manifest.dim, precision="int8", template="{text}"
    )


@contextmanager
def _served(index: Path, embedder: Path, poll_s: float) -> Iterator[dict[str, Any]]:
    """A server of this index; what it said when it was ready."""
    command = [str(Path(sys.executable).with_name("tritonrag")), "serve", "--json"]
    command += ["--index", str(index), "--embedder", str(embedder)]
    command += [argument for name in ("http", "grpc", "metrics", "health") for argument in (f"--{name}-port", "0")]
    environment = {**os.environ, "TRITONRAG_RETRIEVER_POLL_S": str(poll_s)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            said = process.stdout.readline()
            if not said:
                raise InternalError("`tritonrag serve` ended before it was ready; what it said stands above")
            yield json.loads(said)
        finally:
            process.terminate()


def _tell(cycles: int) -> Callable[[int], None]:
    """Progress on a terminal."""

    def tell(cycle: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{cycle} of {cycles} changes ")

    return tell


def page_lines(options: argparse.Namespace, quiet: Tally, result: SwapResult, uses: list[ProcessUse]) -> list[str]:
    """The page, as lines of Markdown. `uses` is what the server held at the start and at the end."""
    kinds = ", ".join(f"{result.changes[kind]} {kind}" for kind in CHANGE_KINDS)
    given = f"--cycles {options.cycles} --clients {options.clients} --poll-s {options.poll_s:g} --seed {options.seed}"
    tally = result.tally
    return [
        "# The index changes under load",
        "",
        f"Measured on {datetime.now(UTC).date()}: {Machine.this()}.",
        "",
        f"    python -m tritonrag_perf.index_swap {given} --output DIR",
        "",
        __doc__.partition("\n\n")[2].strip(),
        "",
        "| | |",
        "|---|---|",
        f"| changes | {options.cycles} in {result.elapsed_s:.0f} s: {kinds} |",
        f"| versions that were live | {result.versions} |",
        f"| versions that answered | {len(tally.versions)} |",
        f"| answers | {tally.answers:,} |",
        f"| failed requests | {tally.failures} |",
        f"| answers that are not those of their version | {tally.wrong} |",
        "| a change is live until it answers, ms | " + _percentiles(result.take_up_ms) + " |",
        f"| the server at the start | {uses[0]} |",
        f"| the server at the end | {uses[1]} |",
        "",
        "| latency, ms | p50 | p99 | p99.9 | answers/s |",
        "|---|---|---|---|---|",
        _latency("nothing changes", quiet, _QUIET_S),
        _latency("the index changes", tally, result.elapsed_s),
        "",
        "While the index changes, building, merging and the oracle's own work take their share of the same cores.",
        f"The server looks for a new version every {options.poll_s:g} s.",
        *(["", "What went wrong:", "", *(f"- {what}" for what in tally.named)] if tally.named else []),
    ]


def _latency(when: str, tally: Tally, seconds: float) -> str:
    figures = " | ".join(f"{tally.percentile_ms(percent):.1f}" for percent in (50, 99, 99.9))
    return f"| {when} | {figures} | {tally.answers / seconds:,.0f} |"


def _percentiles(values: list[float]) -> str:
    p50, p99, most = np.percentile(values, [50, 99, 100])
    return f"p50 {p50:.0f}, p99 {p99:.0f}, most {most:.0f}"


if __name__ == "__main__":
    main()
