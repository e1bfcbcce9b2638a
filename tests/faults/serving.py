"""`tritonrag serve` as a process of its own, with what is to be seen of it from outside."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waiting import wait_until
from tritonrag.commands.health import read_health
from tritonrag.ports import is_free
from tritonrag.processes import SHARED_MEMORY, read_process, session_members
from tritonrag.supervising.stubs import Stub, find_stubs
from tritonrag_client.errors import UnavailableError

PORTS = ("http", "grpc", "metrics", "health")
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """A `tritonrag serve` and what it said when it was ready."""

    process: "subprocess.Popen[str]"
    said: dict[str, Any]
    stderr: Path
    temporary: Path

    @property
    def grpc_url(self) -> str:
        return f"{self.said['host']}:{self.said['grpc_port']}"

    @property
    def health_url(self) -> str:
        return f"http://{self.said['host']}:{self.said['health_port']}"

    def health(self) -> dict[str, Any]:
        return read_health(self.health_url)

    def is_ready(self) -> bool:
        try:
            return bool(self.health()["ready"])
        except UnavailableError:
            return False

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.said["host"], self.said["health_port"], timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def triton_pid(self) -> int:
        """Of the Triton that runs now; it is a child of `serve` and leads a session of its own."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = [int(pid) for file in children for pid in file.read_text().split()]
        return next(pid for pid in pids if os.getsid(pid) == pid)

    def all_stubs(self, model: str) -> list[Stub]:
        """Those too that were replaced and still end what they have begun, oldest first."""
        found = {stub.pid: stub for stub in find_stubs(self.triton_pid()) if stub.model == model}
        began = {pid: reading.began for pid in found if (reading := read_process(pid)) is not None}
        return [found[pid] for pid in sorted(began, key=lambda pid: (began[pid], pid))]

    def stubs(self, model: str) -> list[Stub]:
        """The newest of each instance."""
        newest = {stub.instance: stub for stub in self.all_stubs(model)}
        return [newest[instance] for instance in sorted(newest)]

    def regions(self) -> set[str]:
        """All shared memory of this server: none of another's has its prefix."""
        homes = [home.name for home in self.temporary.glob("tritonrag-home-*")]
        return {region.name for home in homes for region in SHARED_MEMORY.glob(f"{home}*")}

    def events(self) -> list[dict[str, Any]]:
        lines = self.stderr.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events_of(self, model: str) -> list[str]:
        return [one["event"] for one in self.events() if one["model"] == model]

    def ports_in_use(self) -> list[str]:
        return [name for name in PORTS if not is_free("127.0.0.1", self.said[f"{name}_port"])]

    def stop(self) -> None:
        """End it as people do, and see that nothing is left."""
        triton = self.triton_pid()
        homes = [home.name for home in self.temporary.glob("tritonrag-home-*")]
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(TIMEOUT_S) == 0, self.stderr.read_text()
        assert session_members(triton) == []
        assert self.ports_in_use() == []
        assert [region for home in homes for region in SHARED_MEMORY.glob(f"{home}*")] == []
        assert list(self.temporary.glob("tritonrag-home-*")) == []


@contextmanager
def serving(
    folder: Path, *, index: Path, embedder: Path, arguments: tuple[str, ...] = (), **variables: str
) -> Iterator[Serve]:
    """A server that is ready; its temporary files are in `folder`, its settings are defaults, `arguments` and `variables`."""
    temporary, stderr = folder / "temporary", folder / "stderr.txt"
    temporary.mkdir()
    program = [str(Path(sys.executable).with_name("tritonrag")), "serve", "--json"]
    program += ["--index", str(index), "--embedder", str(embedder)]
    program += [*arguments, *(argument for name in PORTS for argument in (f"--{name}-port", "0"))]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRITONRAG_")}
    environment = {**clean, "TMPDIR": str(temporary), **variables}
    with (
        stderr.open("w") as errors,
        subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, stderr.read_text()
            serve = Serve(process=process, said=json.loads(line), stderr=stderr, temporary=temporary)
            assert wait_until(serve.is_ready), serve.health()
            yield serve
        finally:
            process.kill()
