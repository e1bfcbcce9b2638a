"""A server whose engine takes its time, and what its processes hold."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil

from tests.server.wire import Wire
from tests.waiting import settled
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.processes import session_members
from tritonrag.triton_command import CHECKOUT_REPOSITORY, ServeOptions
from tritonrag_backends.settings import Settings

DRAIN_S: Final = 5
_SLOW: Final = Path(__file__).parents[1] / "server" / "slow_generator.py"


def slow_repository(folder: Path) -> Path:
    """The served repository with an engine that writes `max_tokens` words, one every 10 ms: `w1 w2 ...`."""
    folder.mkdir()
    for model in CHECKOUT_REPOSITORY.iterdir():
        if model.name != "generator":
            (folder / model.name).symlink_to(model)
    (folder / "generator" / "1").mkdir(parents=True)
    shutil.copy(CHECKOUT_REPOSITORY / "generator" / "config.pbtxt", folder / "generator")
    shutil.copy(_SLOW, folder / "generator" / "1" / "model.py")
    return folder


def words(count: int) -> str:
    """What that engine answers."""
    return "".join(f"w{number} " for number in range(1, count + 1))


@contextmanager
def slow_server(settings: Settings, folder: Path, *triton_arguments: str) -> Iterator[RunningServer]:
    """A server with that engine. At its end Triton gets DRAIN_S: calls that were cancelled rudely would have it wait for ever."""
    options = ServeOptions(
        settings=settings,
        model_repository=slow_repository(folder),
        drain_timeout_s=DRAIN_S,
        triton_arguments=triton_arguments,
    )
    triton = TritonServer()
    with triton:
        yield triton.start(options)
    assert triton.check_left_behind() == []


def running(wire: Wire) -> float:
    """Generations that run now."""
    return wire.metric("tritonrag_generations_running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a server's processes hold together: resident memory and descriptors."""

    megabytes: float
    descriptors: int

    @classmethod
    def now(cls, server: RunningServer) -> Self:
        """Once the descriptors are still: a connection that was closed takes a moment to go."""
        members = [psutil.Process(member.pid) for member in session_members(server.pid)]
        descriptors = settled(lambda: sum(member.num_fds() for member in members))
        megabytes = sum(member.memory_info().rss for member in members) / 2**20
        return cls(megabytes=megabytes, descriptors=descriptors)
