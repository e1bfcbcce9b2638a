"""A `stop` that reaches the wrong instance of the generator still ends the right generations, and no others."""

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.waiting import wait_until

from tritonrag_backends.generation.peers import ANSWER_S, Peers, stop_everywhere
from tritonrag_backends.generation.running import RunningGenerations
from tritonrag_client.errors import BadRequestError, NotFoundError, UnavailableError

# A generator's process: runs the generations whose ids it is given, and prints the ids of those that were stopped.
PROCESS = """
import asyncio, os, sys
from pathlib import Path
from tritonrag_backends.generation.peers import Peers
from tritonrag_backends.generation.running import RunningGenerations

async def one(running, request_id):
    with running.running(request_id, None) as generation:
        await generation.stopped.wait()
        print(request_id, flush=True)

async def main(folder, *ids):
    running = RunningGenerations()
    Peers.open(Path(folder), os.getpid(), running.stop)
    tasks = [asyncio.create_task(one(running, request_id)) for request_id in ids]
    await asyncio.sleep(0)
    print("runs", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass
class Instance:
    """What one generator holds."""

    peers: Peers
    running: RunningGenerations

    async def stop(self, request_id: str, tenant: str | None = None) -> None:
        await stop_everywhere(request_id, tenant, self.running, self.peers)


@dataclass
class Server:
    """Generators that share a folder."""

    folder: Path
    instances: list[Instance] = field(default_factory=list)

    def start(self, count: int = 1) -> list[Instance]:
        for _ in range(count):
            running = RunningGenerations()
            peers = Peers.open(self.folder, 1_000_000 + len(self.instances), running.stop)
            self.instances.append(Instance(peers, running))
        return self.instances[-count:]

    @property
    def sockets(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def close(self) -> None:
        for instance in self.instances:
            instance.peers.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()
    assert not any(
        name.startswith("generator-1000") for name in made.sockets
    )  # others are a process's, which is killed


@pytest.fixture
def processes(tmp_path: Path) -> Iterator["Processes"]:
    with Processes(tmp_path) as started:
        yield started


class Processes(ExitStack):
    """Generators in processes of their own; gone at the end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def start(self, *ids: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROCESS, str(self.folder), *ids]
        process = self.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        self.callback(process.kill)
        assert self.heard(process) == "runs"
        return process

    @staticmethod
    def heard(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()


async def test_a_stop_ends_all_that_bear_the_id_wherever_they_run(server: Server) -> None:
    asked, second, third = server.start(3)
    with (
        asked.running.running("a", None) as here,
        second.running.running("a", None) as there,
        third.running.running("a", None) as further,
        third.running.running("b", None) as other,
    ):
        await asked.stop("a")
        assert all(generation.stopped.is_set() for generation in (here, there, further))
        assert not other.stopped.is_set()


async def test_nobody_has_it_only_where_nobody_has_it(server: Server) -> None:
    asked, other = server.start(2)
    with pytest.raises(NotFoundError, match="'a'"):
        await asked.stop("a")
    with other.running.running("a", None):
        await asked.stop("a")
    with pytest.raises(NotFoundError, match="'a'"):
        await asked.stop("a")


async def test_tenants_stay_apart_across_instances(server: Server) -> None:
    asked, other = server.start(2)
    with other.running.running("a", "blue") as generation:
        for tenant in (None, "red", ""):
            with pytest.raises(NotFoundError):
                await asked.stop("a", tenant)
        assert not generation.stopped.is_set()
        await asked.stop("a", "blue")
        assert generation.stopped.is_set()


async def test_an_id_of_any_length_is_found(server: Server) -> None:
    asked, other = server.start(2)
    long = "\N{SNOWMAN}" * 1_000_000
    with other.running.running(long, long) as generation:
        await asked.stop(long, long)
        assert generation.stopped.is_set()


async def test_a_stop_without_an_id_is_refused(server: Server) -> None:
    (asked,) = server.start()
    with pytest.raises(BadRequestError, match="request id"):
        await asked.stop("")


async def test_without_peers_this_process_alone_is_looked_at() -> None:
    running = RunningGenerations()
    with running.running("a", None) as generation:
        await stop_everywhere("a", None, running, None)
        assert generation.stopped.is_set()
    with pytest.raises(NotFoundError):
        await stop_everywhere("a", None, running, None)


async def test_more_stops_than_a_queue_holds_all_end_theirs(server: Server) -> None:
    instances = server.start(3)
    with ExitStack() as runs:
        generations = [
            runs.enter_context(instances[number % 3].running.running(f"id {number}", None)) for number in range(300)
        ]
        await asyncio.gather(*(instances[number // 100].stop(f"id {number}") for number in range(300)))
        assert all(generation.stopped.is_set() for generation in generations)


@settings(max_examples=25, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.sampled_from([None, "t"])), max_size=12),
    stops=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.sampled_from([None, "t"])), max_size=6),
)
def test_whoever_is_asked_exactly_those_end_that_bear_id_and_tenant(
    runs: list[tuple[int, str, str | None]], stops: list[tuple[int, str, str | None]]
) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
            server = Server(Path(folder))
            instances = server.start(4)
            generations = [held.enter_context(instances[where].running.running(*key)) for where, *key in runs]
            not_found = set()
            for where, *key in stops:
                try:
                    await instances[where].stop(*key)
                except NotFoundError:
                    not_found.add(tuple(key))
            asked = {tuple(key) for _, *key in stops}
            assert not_found == asked - {tuple(key) for _, *key in runs}
            assert [generation.stopped.is_set() for generation in generations] == [
                tuple(key) in asked for _, *key in runs
            ]
            server.close()

    asyncio.run(check())


async def test_a_folder_of_any_length_will_do(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 50)
    folder.mkdir()
    server = Server(folder)
    asked, other = server.start(2)
    with other.running.running("a", None) as generation:
        await asked.stop("a")
        assert generation.stopped.is_set()
    server.close()


async def test_a_folder_that_is_not_there_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError):
        Peers.open(tmp_path / "none", 1, lambda _: False)
    assert psutil.Process().num_fds() == before


async def test_closing_frees_everything_and_may_be_done_twice(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    server = Server(tmp_path)
    server.start(2)
    server.close()
    server.close()
    assert (psutil.Process().num_fds(), server.sockets) == (before, [])


async def test_an_instance_that_was_closed_is_asked_no_more(server: Server) -> None:
    asked, other = server.start(2)
    other.peers.close()
    with other.running.running("a", None), pytest.raises(NotFoundError):
        await asked.stop("a")


async def test_what_is_no_message_is_passed_over(server: Server) -> None:
    asked, other = server.start(2)
    for junk in (b"", b"x", b"x" * 1000):
        asked.peers._socket.sendto(junk, str(server.folder / "generator-1000001.sock"))
    with other.running.running("a", None) as generation:
        await asked.stop("a")
        assert generation.stopped.is_set()


async def test_a_generation_in_another_process_is_ended(server: Server, processes: Processes) -> None:
    process = processes.start("a", "b")
    (asked,) = server.start()
    await asked.stop("b")
    assert await asyncio.to_thread(processes.heard, process) == "b"
    process.kill()
    process.wait()
    with pytest.raises(NotFoundError):
        await asked.stop("a")


async def test_a_killed_process_costs_nothing_and_its_socket_is_removed(server: Server, processes: Processes) -> None:
    process = processes.start("a")
    asked, other = server.start(2)
    process.kill()
    process.wait()
    assert len(server.sockets) == 3
    with other.running.running("b", None) as generation:
        await asked.stop("b")
        assert generation.stopped.is_set()
    assert len(server.sockets) == 2
    with pytest.raises(NotFoundError):
        await asked.stop("a")


async def test_a_process_that_hangs_is_told_of_and_ends_its_generation_when_it_goes_on(
    server: Server, processes: Processes
) -> None:
    process = processes.start("a")
    asked, other = server.start(2)
    process.send_signal(signal.SIGSTOP)
    assert wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    began_s = time.monotonic()
    with pytest.raises(UnavailableError, match="send the stop again"):
        await asked.stop("a")
    assert time.monotonic() - began_s >= ANSWER_S
    with other.running.running("b", None) as found:  # that another hangs is no matter where it was found
        await asked.stop("b")
        assert found.stopped.is_set()
    process.send_signal(signal.SIGCONT)
    assert await asyncio.to_thread(processes.heard, process) == "a"


async def test_a_process_that_hangs_with_a_full_queue_holds_nobody_up_for_longer(
    server: Server, processes: Processes
) -> None:
    process = processes.start("a")
    (asked,) = server.start()
    process.send_signal(signal.SIGSTOP)
    assert wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    outcomes = await asyncio.gather(*(asked.stop("a") for _ in range(1000)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {UnavailableError}
    process.send_signal(signal.SIGCONT)
    assert await asyncio.to_thread(processes.heard, process) == "a"
