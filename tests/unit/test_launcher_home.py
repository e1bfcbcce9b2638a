"""What a server that was killed outright left behind is removed by the next one; what lives is never touched."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tritonrag.triton_home import HOME_PREFIX, remove_abandoned_homes

SLEEP = shutil.which("sleep") or "/bin/sleep"
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that is old enough to be looked at."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / f"{HOME_PREFIX}test"
    (path / "backends/python").mkdir(parents=True)
    (path / "lock").touch()
    os.utime(path, (0, 0))
    return path


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts `sleep` under a name of our own, holding the home's lock."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str) -> subprocess.Popen[bytes]:
        lock = os.open(home / "lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        started.append(subprocess.Popen([*arguments], executable=SLEEP, pass_fds=(lock,), stderr=subprocess.DEVNULL))
        os.close(lock)
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def stub_of(home: Path) -> str:
    return str(home / "backends/python/triton_python_backend_stub")


def test_a_home_that_nobody_holds_is_removed(home: Path) -> None:
    remove_abandoned_homes()
    assert not home.exists()


def test_stubs_whose_triton_is_gone_are_ended_and_their_home_is_removed(home: Path, start: Start) -> None:
    stub = start(stub_of(home), "600")
    remove_abandoned_homes()
    assert stub.wait(timeout=10) == -9
    assert not home.exists()


def test_the_stubs_of_a_triton_that_lives_are_left_alone(home: Path, start: Start) -> None:
    script = home.parent / "triton.sh"
    script.write_text("read line\n")
    with subprocess.Popen(
        ["/bin/sh", str(script), f"--backend-directory={home / 'backends'}"], stdin=subprocess.PIPE
    ) as triton:
        stub = start(stub_of(home), "600")
        remove_abandoned_homes()
        assert stub.poll() is None
        assert home.exists()
        triton.kill()


def test_a_home_that_another_process_holds_is_left_alone(home: Path, start: Start) -> None:
    other = start("launcher", "600")
    remove_abandoned_homes()
    assert other.poll() is None
    assert home.exists()
