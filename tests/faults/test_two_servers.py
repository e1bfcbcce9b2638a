"""Two servers over one index and a client of both: each in turn is told to end and started anew, and no request notices."""

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import pytest

from tests.faults.load import QUESTIONS, Kind, Outcome, References, Tally, take_references
from tests.faults.slow_server import slow_repository, words
from tests.waiting import wait_until
from tritonrag.ports import choose_ports, is_free
from tritonrag.processes import session_members
from tritonrag_backends.settings import Settings
from tritonrag_client import AsyncRagClient, RagError, RetryPolicy, Timeouts

RATE_PER_S: Final = 20
DEADLINE_S: Final = 10.0
WORDS: Final = 40  # an answer takes 0.4 s, so that some are always on their way
ANSWER: Final = words(WORDS)
ENOUGH: Final = 10  # requests that a server answers before the other one may go
START_S: Final = 120.0
Ask = Callable[[str], Awaitable[str]]  # a question; what is wrong with its answer
STARTED = re.compile(r'^nv_inference_request_success\{model="(retrieve|generator)",[^}]*\} (\d+)', re.MULTILINE)


class Serve:
    """`tritonrag serve` as a program, on a gRPC port that stays the same from start to start."""

    def __init__(self, settings: Settings, repository: Path, folder: Path, port: int) -> None:
        command = [str(Path(sys.executable).with_name("tritonrag")), "serve", "--json", "--grpc-port", str(port)]
        command += ["--index", str(settings.index), "--embedder", str(settings.embedder.model)]
        command += ["--model-repository", str(repository)]
        self._command = [
            *command,
            *(item for name in ("http", "metrics", "health") for item in (f"--{name}-port", "0")),
        ]
        folder.mkdir()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TRITONRAG_")}
        self._environment = {**clean, "TMPDIR": str(folder), "TRITONRAG_EMBEDDER_INSTANCES": "1"}
        self._errors = folder / "stderr"
        self.url = f"127.0.0.1:{port}"
        self._process: subprocess.Popen[str] | None = None
        self._said: dict[str, Any] = {}

    def start(self) -> None:
        with self._errors.open("a") as errors:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._errors.read_text()
        self._said = json.loads(line)

    def answered(self) -> int:
        """How many requests the models that clients ask have answered since the start, the fewer of the two."""
        url = f"http://127.0.0.1:{self._said['metrics_port']}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answer:
            counts = dict(STARTED.findall(answer.read().decode()))
        return min(int(counts.get(model, 0)) for model in ("retrieve", "generator"))

    def end(self) -> None:
        """SIGTERM, as an orchestrator does it, and the end of what had begun."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=START_S)
        assert self._process.returncode == 0, self._errors.read_text()
        assert session_members(self._said["triton_pid"]) == []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        assert wait_until(lambda: is_free("127.0.0.1", int(self.url.rpartition(":")[2])))


class Traffic:
    """Searches and streamed answers in turn, RATE_PER_S of them, from a client that tries nothing again at the same server."""

    def __init__(self, urls: list[str], references: References) -> None:
        self.tally = Tally(deadline_s=DEADLINE_S)
        self._urls, self._references = urls, references
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask_on()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(3 * DEADLINE_S)
        assert not self._thread.is_alive(), "a request does not end"

    async def _ask_on(self) -> None:
        timeouts = Timeouts(connect_s=2.0, total_s=DEADLINE_S)
        once = RetryPolicy(attempts=1)
        async with (
            AsyncRagClient(self._urls, timeouts=timeouts, retry=once) as client,
            AsyncRagClient(self._urls, timeouts=timeouts, retry=once, model="rag") as rag,
        ):
            works: list[tuple[Kind, Ask]] = [
                ("search", partial(self._search, client)),
                ("ask", partial(self._stream, client)),
                ("ask_rag", partial(self._stream, rag)),
            ]
            turns = ((*work, question) for question in itertools.cycle(QUESTIONS) for work in works)
            tasks: set[asyncio.Task[None]] = set()
            while not self._ended.is_set():
                tasks.add(task := asyncio.create_task(self._noted(*next(turns))))
                task.add_done_callback(tasks.discard)
                await asyncio.sleep(1 / RATE_PER_S)
            await asyncio.gather(*tasks)

    async def _noted(self, kind: Kind, ask: Ask, question: str) -> None:
        began_s, error, message, wrong = time.monotonic(), "", "", ""
        try:
            wrong = await ask(question)
        except RagError as failure:
            error, message = failure.code, failure.message
        took_s = time.monotonic() - began_s
        self.tally.outcomes.append(
            Outcome(kind=kind, began_s=began_s, took_s=took_s, error=error, message=message, wrong=wrong)
        )

    async def _search(self, client: AsyncRagClient, question: str) -> str:
        return self._references.check("search", question, await client.search(question))

    async def _stream(self, client: AsyncRagClient, question: str) -> str:
        deltas = [delta async for delta in client.stream(question, max_tokens=WORDS)]
        text, ids = "".join(delta.text for delta in deltas), [one.passage_id for one in deltas[0].sources]
        wanted = [one.passage_id for one in self._references.answers["search", question].passages]
        return "" if (text, ids) == (ANSWER, wanted) else f"{text!r} from {ids} instead of {ANSWER!r} from {wanted}"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return slow_repository(tmp_path / "repository")


@pytest.fixture
def servers(settings: Settings, repository: Path, tmp_path: Path) -> Iterator[list[Serve]]:
    with ExitStack() as stack:
        ports = choose_ports("127.0.0.1", {"one": 0, "other": 0})
        yield [stack.enter_context(Serve(settings, repository, tmp_path / name, port)) for name, port in ports.items()]


def test_a_rolling_upgrade_fails_no_request(servers: list[Serve]) -> None:
    references = take_references(servers[0].url, kinds=("search",))
    with Traffic([server.url for server in servers], references) as traffic:
        for server in servers:
            assert wait_until(lambda: all(one.answered() >= ENOUGH for one in servers), START_S)
            server.end()
            server.start()
        assert wait_until(lambda: all(one.answered() >= ENOUGH for one in servers), START_S)
    tally = traffic.tally
    assert (tally.failed(), tally.wrong(), tally.late()) == ([], [], [])
    assert all(len(tally.answered(kind=kind)) > ENOUGH for kind in ("search", "ask", "ask_rag"))
