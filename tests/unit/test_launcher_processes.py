"""Processes of any user, whatever they call themselves, are read."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import wait_until

from tritonrag.processes import Process, has_work, read_process, session_members

SLEEP = shutil.which("sleep") or "/bin/sleep"


class TestAProcessWhoseNameIsCutWithinALetter:
    @pytest.fixture
    def process(self, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
        """The kernel names a process after its program, and keeps 15 bytes of that."""
        program = tmp_path / f"{'x' * 14}ü"
        program.symlink_to(SLEEP)
        with subprocess.Popen([program, "600"], start_new_session=True) as process:
            comm = Path(f"/proc/{process.pid}/comm")
            is_named = wait_until(lambda: comm.read_bytes() == b"x" * 14 + b"\xc3\n")
            yield process
            process.kill()
        assert is_named

    def test_is_found_in_its_session(self, process: subprocess.Popen[bytes], tmp_path: Path) -> None:
        assert session_members(process.pid) == [Process(pid=process.pid, command=f"{tmp_path}/{'x' * 14}ü 600"[:120])]

    @pytest.mark.usefixtures("process")
    def test_hides_no_other_session(self) -> None:
        with subprocess.Popen([SLEEP, "600"], start_new_session=True) as other:
            members = session_members(other.pid)
            other.kill()
        assert [member.pid for member in members] == [other.pid]

    def test_is_read(self, process: subprocess.Popen[bytes]) -> None:
        reading = read_process(process.pid)
        assert reading is not None
        assert not reading.is_dead
        assert wait_until(lambda: not has_work(process.pid))
