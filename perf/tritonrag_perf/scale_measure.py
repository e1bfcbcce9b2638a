"""How `tritonrag_perf.scale` takes its samples: a served load, a start beside a reading of the same bytes, memory."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.processes import session_members
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import Settings, load_settings
from tritonrag_client.contract import RETRIEVE
from tritonrag_perf.load import Load, Windows
from tritonrag_perf.perf_analyzer import PerfAnalyzer
from tritonrag_perf.questions import write_input_data
from tritonrag_perf.scale_record import Memory, Serving, Start, live_files
from tritonrag_perf.scrape_use import session_cpu_s
from tritonrag_perf.server_time import ServerStatistics

_BUFFER_BYTES: Final = 1 << 20
_PROC: Final = Path("/proc")


def scale_settings(index: Path, embedder: Path) -> Settings:
    """Settings with which a question that is asked twice is work twice, and ten passages come, because recall is that of ten."""
    return load_settings(
        {
            "TRITONRAG_INDEX": str(index),
            "TRITONRAG_EMBEDDER_MODEL": str(embedder),
            "TRITONRAG_RETRIEVER_CACHE_BYTES": "0",
            "TRITONRAG_RETRIEVER_NUM_PASSAGES": "10",
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """perf_analyzer with its questions, for every server the same."""

    perf_analyzer: PerfAnalyzer
    windows: Windows
    questions: Sequence[str]
    folder: Path

    def serving(self, running: RunningServer, *, number: int, index: str, clients: int) -> Serving:
        """One load of one server. Raises what perf_analyzer's run raises."""
        load = Load(model=RETRIEVE, concurrency=clients)
        path = self.folder / "questions.json"
        data = write_input_data(path, self.questions, load, stream=False, max_tokens=None)
        with ServerStatistics(running.grpc_url) as statistics:
            asked, cpu_s = _asked(statistics), session_cpu_s(running.pid)
            measured = self.perf_analyzer.run(load, self.windows, url=running.grpc_url, input_data=data)
            asked, cpu_s = _asked(statistics) - asked, session_cpu_s(running.pid) - cpu_s
        return Serving(
            round=number,
            index=index,
            clients=clients,
            questions_per_s=measured.requests_per_s,
            p50_ms=measured.latency.p50_ms,
            p99_ms=measured.latency.p99_ms,
            server_cpu_ms=1e3 * cpu_s / max(asked, 1),
            client_cores=measured.client_cores,
            stable=measured.stable,
        )


def _asked(statistics: ServerStatistics) -> int:
    """Questions that `retrieve` has answered: a request is one here, and an ensemble counts its requests as a model does."""
    return statistics.counters((RETRIEVE,))[RETRIEVE].requests


def measure_start(settings: Settings, *, number: int, index: str) -> Start:
    """Read the live version twice, the second time by the clock, and start a server with it. Raises what a start raises."""
    files = live_files(settings.index)
    read_files(files)  # so that what is timed next comes out of the page cache
    read_s = _seconds_to_read(files)
    with TritonServer() as server:
        began_s = time.perf_counter()
        server.start(ServeOptions(settings=settings))
        return Start(round=number, index=index, start_s=time.perf_counter() - began_s, read_s=read_s)


def read_files(files: Iterable[Path]) -> int:
    """Read all of them from the first byte to the last, as `cat` does; how many bytes that were."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    total = 0
    for path in files:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def _seconds_to_read(files: Sequence[Path]) -> float:
    began_s = time.perf_counter()
    read_files(files)
    return time.perf_counter() - began_s


def measure_memory(session: int, *, number: int, index: str) -> Memory:
    """What all processes of the server hold now."""
    sizes = [_sizes(process.pid) for process in session_members(session)]
    total, own, mapped, shared = (
        sum(one.get(field, 0) for one in sizes) for field in ("Pss", "Pss_Anon", "Pss_File", "Pss_Shmem")
    )
    return Memory(
        round=number, index=index, pss_bytes=total, own_bytes=own, mapped_bytes=mapped, shared_memory_bytes=shared
    )


def _sizes(pid: int) -> dict[str, int]:
    """Bytes by field of /proc/PID/smaps_rollup; none where the process ended while we looked."""
    with suppress(OSError):
        lines = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
        fields = (line.partition(":") for line in lines)
        return {name: 1024 * int(value.split()[0]) for name, _, value in fields}
    return {}
