"""How soon a language model stops when nobody wants its answer any more: `python -m tritonrag_perf.stopping`.

Three ways: `stop` under the request's id while `rag` streams, closing the stream of `generator`, kill -9 of its client. Measured
is the time from there to the last CPU time that the model's process takes, which the kernel counts in steps of 10 ms.
Writes DIR/NAME.md.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.processes import processes_with, session_members, stat_fields
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.generation.genai.process import WORKER_MODULE
from tritonrag_backends.settings import load_settings
from tritonrag_client import RagClient
from tritonrag_perf.machine import Machine

_QUESTION: Final = "Tell a very long story about everything that the passages say."
_TOKENS: Final = 4000
_DELTAS: Final = 5  # read before it is stopped
_QUIET_S: Final = 0.5  # without any CPU time it has stopped
_POLL_S: Final = 0.002
_READER: Final = """
import sys
from tritonrag_client import RagClient
with RagClient(sys.argv[1]) as client:
    for number, _ in enumerate(client.stream(sys.argv[2], max_tokens=int(sys.argv[3]), temperature=1.0)):
        if number == int(sys.argv[4]):
            print("reading", flush=True)
"""


def stop_rag(server: RunningServer) -> Iterator[None]:
    """`stop` under the request's id, while `rag` streams."""
    with RagClient(server.grpc_url, model="rag") as client:
        stream = client.stream(_QUESTION, max_tokens=_TOKENS, temperature=1.0, request_id="stopping")
        for _ in range(_DELTAS):
            next(iter(stream))
        yield
        client.cancel("stopping")
        yield
        list(stream)


def close_generator(server: RunningServer) -> Iterator[None]:
    """Leaving the stream of `generator`."""
    with RagClient(server.grpc_url, model="generator") as client:
        stream = client.stream(_QUESTION, max_tokens=_TOKENS, temperature=1.0)
        for _ in range(_DELTAS):
            next(iter(stream))
        yield
        stream.cancel()
        yield


def kill_client(server: RunningServer) -> Iterator[None]:
    """SIGKILL of a client of `generator`."""
    command = [sys.executable, "-c", _READER, server.grpc_url, _QUESTION, str(_TOKENS), str(_DELTAS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None  # noqa: S101 - it is a pipe
        client.stdout.readline()
        yield
        client.kill()
        yield


WAYS: Final[dict[str, Callable[[RunningServer], Iterator[None]]]] = {
    "`stop` by request id, `rag`": stop_rag,
    "stream closed, `generator`": close_generator,
    "client killed with -9, `generator`": kill_client,
}


def measure(way: Callable[[RunningServer], Iterator[None]], server: RunningServer, worker: int) -> float:
    """Milliseconds from the moment of stopping to the last CPU time."""
    steps = way(server)
    next(steps)
    began_s = time.perf_counter()
    next(steps)
    last_s, used = began_s, cpu_ticks(worker)
    while time.perf_counter() - last_s < _QUIET_S:
        time.sleep(_POLL_S)
        now = cpu_ticks(worker)
        if now != used:
            last_s, used = time.perf_counter(), now
    for _ in steps:
        pass
    return (last_s - began_s) * 1e3


def cpu_ticks(pid: int) -> int:
    """CPU time of a process and its threads, in the kernel's ticks."""
    fields = stat_fields(Path(f"/proc/{pid}"))
    return int(fields[11]) + int(fields[12])


@contextmanager
def language_model(index: Path, embedder: Path, model: Path) -> Iterator[tuple[RunningServer, int]]:
    """A server of our own, and the process id of its language model."""
    settings = load_settings(
        {
            "TRITONRAG_INDEX": str(index),
            "TRITONRAG_EMBEDDER_MODEL": str(embedder),
            "TRITONRAG_GENERATOR_ENGINE": "onnxruntime_genai",
            "TRITONRAG_GENAI_MODEL": str(model),
        }
    )
    with TritonServer() as server:
        running = server.start(ServeOptions(settings=settings))
        ours = {process.pid for process in session_members(os.getsid(running.pid))}
        (worker,) = ours.intersection(processes_with(lambda arguments: WORKER_MODULE in arguments))
        yield running, worker


def main() -> None:
    """Measure each way in turn, several times, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/demo-index"))
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--generator-model", type=Path, default=Path(".tritonrag/generator"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--name", default="stopping")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    with language_model(options.index, options.embedder, options.generator_model) as (server, worker):
        for _ in range(options.rounds):
            for name, way in WAYS.items():
                times[name].append(measure(way, server, worker))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{options.name}.md").write_text(render(times, options.generator_model.name), encoding="utf-8")


def render(times: dict[str, Sequence[float]] | dict[str, list[float]], model: str) -> str:
    """The page."""
    rounds = len(next(iter(times.values())))
    lines = [
        f"Model {model}, {rounds} rounds. {Machine.this()}.",
        "",
        "| stopped by | ms to the last CPU time, median | least | most |",
        "|---|---|---|---|",
        *(f"| {name} | {statistics.median(ms):.0f} | {min(ms):.0f} | {max(ms):.0f} |" for name, ms in times.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
