"""Triton's parts in the installed wheel, and the private folder that puts them together for one server."""

import fcntl
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tritonrag.processes import kill_all, processes_with, remove_shared_memory
from tritonrag_client.errors import NotFoundError

PACKAGE = "nvidia-pytriton==0.7.0"
HOME_PREFIX = "tritonrag-home-"
_BACKENDS_OPTION = "--backend-directory="  # by it a Triton is known as the one of a home
_SETTLE_S = 60.0  # a home younger than this may not have been locked yet by who makes it


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonWheel:
    """Where the nvidia-pytriton wheel has Triton's parts: a program, three folders and the stub of the running Python."""

    tritonserver: Path
    python_backend: Path
    caches: Path
    stub: Path
    libraries: Path

    def library_path(self) -> str:
        """LD_LIBRARY_PATH for tritonserver and the stubs: libpython's folder, the wheel's libraries, and what was there before."""
        folders = [str(self.libraries)]
        libdir = Path(sysconfig.get_config_var("LIBDIR") or "/nonexistent")
        if (libdir / (sysconfig.get_config_var("INSTSONAME") or "libpython3.so")).exists():
            folders.insert(0, str(libdir))
        inherited = os.environ.get("LD_LIBRARY_PATH")
        return ":".join([*folders, inherited] if inherited else folders)


def find_wheel() -> TritonWheel:
    """Find the parts without importing the wheel's package; raises NotFoundError that names the missing part."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise NotFoundError(f"the package that carries tritonserver is not installed; pip install {PACKAGE}")
    package = Path(spec.origin).parent
    triton = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wheel = TritonWheel(
        tritonserver=triton / "bin/tritonserver",
        python_backend=triton / "backends/python",
        caches=triton / "caches",
        stub=triton / "python_backend_stubs" / version / "triton_python_backend_stub",
        libraries=package.parent / "nvidia_pytriton.libs",
    )
    for part in (wheel.tritonserver, wheel.python_backend, wheel.stub, wheel.libraries):
        if not part.exists():
            raise NotFoundError(
                f"{part} is missing, so there is no Triton for Python {version}; pip install --force-reinstall {PACKAGE}"
            )
    return wheel


class TritonHome:
    """A private folder (mode 0700) of links that is one server's backend directory, its log's place and its lock.

    The lock is held by an open file that Triton and its stubs inherit: while it is held, something of this server lives.
    So a home that nobody holds was left by a server that was killed outright, and the next one made removes it; likewise one
    that is held by stubs alone, whose Triton is gone.
    """

    def __init__(self, wheel: TritonWheel) -> None:
        remove_abandoned_homes()
        self.path = Path(tempfile.mkdtemp(prefix=HOME_PREFIX))
        self.lock_fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock_fd, fcntl.LOCK_EX)
        self.backends = self.path / "backends"
        self.caches = wheel.caches
        # Files are linked, folders are not: Python writes __pycache__ beside triton_python_backend_utils.py.
        (self.backends / "python").mkdir(parents=True)
        parts = [part for part in wheel.python_backend.iterdir() if part.is_file()]
        for part in (*parts, wheel.stub):
            (self.backends / "python" / part.name).symlink_to(part)

    @property
    def shm_prefix(self) -> str:
        """What the names of this server's shared-memory regions begin with: no other server's do."""
        return self.path.name

    def remove(self) -> None:
        """Remove the folder and this server's leaked shared memory. Only once its processes are gone."""
        os.close(self.lock_fd)
        _remove(self.path)


def remove_abandoned_homes() -> None:
    """Remove the homes (and shared memory) of servers whose every process is gone."""
    for home in Path(tempfile.gettempdir()).glob(f"{HOME_PREFIX}*"):
        with suppress(OSError):  # another user's, or another of us was faster: not ours to remove
            if time.time() - home.stat().st_mtime > _SETTLE_S:
                _remove_if_abandoned(home)


def _remove_if_abandoned(home: Path) -> None:
    lock = os.open(home / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(home)
            return
        _end_orphaned_stubs(home)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(home)
    finally:
        os.close(lock)


def _end_orphaned_stubs(home: Path) -> None:
    """End a home's stubs where its Triton is gone; where that lives, nothing happens.

    Measured with 2.51.0: stubs that load their model while Triton ends wait for it ever after, and hold the lock.
    """
    if processes_with(lambda arguments: _BACKENDS_OPTION + str(home / "backends") in arguments):
        return
    kill_all(lambda: processes_with(lambda arguments: arguments[0].startswith(f"{home}/")))


def _remove(home: Path) -> None:
    remove_shared_memory(home.name)
    shutil.rmtree(home, ignore_errors=True)
