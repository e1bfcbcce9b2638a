"""What a server that was killed outright left behind is removed by the next one; what lives is never touched."""

import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tritonrag.triton_home import HOME_PREFIX, TritonHome, remove_abandoned_homes
from tritonrag.triton_parts import find_wheel
from tritonrag_client.errors import BadRequestError

SLEEP = shutil.which("sleep") or "/bin/sleep"
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that is old enough to be looked at."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / f"{HOME_PREFIX}test_one"
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


def test_a_folder_for_temporary_files_with_a_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with pytest.raises(BadRequestError, match=r"my files.*TMPDIR"):
        TritonHome(find_wheel())
    assert list(folder.iterdir()) == []


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


def test_a_home_of_another_user_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: home.stat().st_uid + 1)
    remove_abandoned_homes()
    assert home.exists()


@pytest.mark.parametrize("name", ["", "tes"])
def test_a_folder_whose_name_begins_those_of_homes_takes_no_shared_memory_with_it(
    home: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = home.parent / "memory" / f"{home.name}_1"
    region.parent.mkdir()
    region.touch()
    monkeypatch.setattr("tritonrag.processes.SHARED_MEMORY", region.parent)
    home.rename(home.with_name(HOME_PREFIX + name))
    remove_abandoned_homes()
    assert region.exists()


def test_one_that_can_not_be_made_leaves_neither_folder_nor_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tritonrag.triton_home._link_backends", full)
    with pytest.raises(OSError, match="No space left"):
        TritonHome(find_wheel())
    assert list(tmp_path.iterdir()) == []
    assert not [name for name in open_files() if name.startswith(str(tmp_path))]


def open_files() -> list[str]:
    names = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # what we look by is closed again
            names.append(str(link.readlink()))
    return names
