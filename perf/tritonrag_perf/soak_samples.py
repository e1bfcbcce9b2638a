"""What a server holds at a moment: memory, threads and descriptors of Triton and each stub, shared memory, what runs."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tritonrag.launcher import RunningServer
from tritonrag.processes import shared_memory
from tritonrag.supervising.stubs import find_stubs
from tritonrag_client.errors import UnavailableError
from tritonrag_perf.scrape import read

_PROC: Final = Path("/proc")
_RUNNING: Final = "tritonrag_generations_running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """By one process: memory of its own that it wrote to; RSS and PSS, with what it shares and with its share of that.

    Source: proc(5), smaps_rollup and status.
    """

    private_bytes: int
    rss_bytes: int
    pss_bytes: int
    threads: int
    descriptors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """At `at_s` seconds since the start: by Triton and by each stub under its instance's name, and by the server as a whole."""

    at_s: float
    processes: dict[str, Held]
    regions: int
    region_bytes: int
    generations: float


def held_by(pid: int) -> Held:
    """What a process holds now. Raises OSError where it is gone."""
    folder = _PROC / str(pid)
    rollup, status = _fields(folder / "smaps_rollup"), _fields(folder / "status")
    return Held(
        private_bytes=rollup["Private_Dirty"] * 1024,
        rss_bytes=rollup["Rss"] * 1024,
        pss_bytes=rollup["Pss"] * 1024,
        threads=status["Threads"],
        descriptors=len(list((folder / "fd").iterdir())),
    )


def _fields(path: Path) -> dict[str, int]:
    """Name and first number of each line that has one."""
    split = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {name: int(rest.split()[0]) for name, _, rest in split if rest.split()[:1] and rest.split()[0].isdigit()}


def take_sample(server: RunningServer, at_s: float) -> Sample:
    """Look once. Raises UnavailableError where Triton is gone or does not tell its metrics."""
    processes = {"triton": server.pid, **{stub.instance: stub.pid for stub in find_stubs(server.pid)}}
    try:
        held = {name: held_by(pid) for name, pid in processes.items()}
    except OSError as error:
        raise UnavailableError(f"a process of the server ended while it was watched: {error}; see its log") from error
    regions = [size for region in shared_memory(server.shm_prefix) if (size := _bytes_of(region)) is not None]
    gauges = read(f"{server.plain_host}:{server.metrics_port}").gauges
    return Sample(
        at_s=at_s,
        processes=held,
        regions=len(regions),
        region_bytes=sum(regions),
        generations=sum(value for name, value in gauges.items() if name.startswith(_RUNNING)),
    )


def _bytes_of(region: Path) -> int | None:
    with suppress(FileNotFoundError):  # it went while we looked
        return region.stat().st_blocks * 512
    return None


class Sampler:
    """Takes a sample every `every_s` in a thread, from entering until leaving. `trouble` is why it ended early; "" if not."""

    def __init__(self, take: Callable[[float], Sample], *, every_s: float) -> None:
        self._take, self._every_s = take, every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.samples: list[Sample] = []
        self.trouble = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        began_s = time.monotonic()
        while not self.trouble:
            try:
                self._keep(self._take(time.monotonic() - began_s))
            except UnavailableError as error:
                self.trouble = error.message
            if self._end.wait(self._every_s):
                return

    def _keep(self, sample: Sample) -> None:
        if self.samples and (odd := self.samples[0].processes.keys() ^ sample.processes.keys()):
            raise UnavailableError(f"the processes of the server are not those of before: {', '.join(sorted(odd))}")
        self.samples.append(sample)
