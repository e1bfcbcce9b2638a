"""The private folder that puts Triton's parts together for one server."""

import fcntl
import os
import re
import shutil
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tritonrag.processes import kill_all, processes_with, remove_shared_memory
from tritonrag.triton_parts import TritonParts
from tritonrag_client.errors import BadRequestError

HOME_PREFIX = "tritonrag-home-"
_NAME = re.compile(rf"{HOME_PREFIX}[a-z0-9_]{{8}}")  # as mkdtemp gives it: of one length, so that none begins another
_BACKENDS_OPTION = "--backend-directory="  # by it a Triton is known as the one of a home
_SETTLE_S = 60.0  # a home younger than this may not have been locked yet by who makes it


class TritonHome:
    """A private folder (mode 0700) that is one server's backend directory, model repository, `run` folder, log's place and lock.

    The lock is held by an open file that Triton and its stubs inherit: while it is held, something of this server lives.
    So a home that nobody holds was left by a server that was killed outright, and the next one made removes it; likewise one
    that is held by stubs alone, whose Triton is gone.
    """

    def __init__(self, triton: TritonParts) -> None:
        """Raises BadRequestError where the folder for temporary files has a space in its name."""
        _require_no_spaces(Path(tempfile.gettempdir()))
        remove_abandoned_homes()
        self.path = Path(tempfile.mkdtemp(prefix=HOME_PREFIX))
        self.backends = self.path / "backends"
        self.models = self.path / "models"
        self.run = self.path / "run"
        self.caches = triton.caches
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, self.path, ignore_errors=True)
            self.lock_fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, self.lock_fd)
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX)
            for folder in (self.models, self.run):
                folder.mkdir(mode=0o700)
            _link_backends(triton, self.backends)
            undo.pop_all()

    @property
    def shm_prefix(self) -> str:
        """What the names of this server's shared-memory regions begin with: no other server's do."""
        return self.path.name

    def remove(self) -> None:
        """Remove the folder and this server's leaked shared memory. Only once its processes are gone."""
        os.close(self.lock_fd)
        _remove(self.path)


def _require_no_spaces(folder: Path) -> None:
    """Triton (2.51) waits for ever for a Python model's process whose path has one."""
    if re.search(r"\s", str(folder)):
        raise BadRequestError(
            f"the folder for temporary files is {str(folder)!r}, and Triton can't start models below a name with a space;"
            " set TMPDIR to another"
        )


def _link_backends(triton: TritonParts, folder: Path) -> None:
    """Every backend as a link, but for Python's, whose files are linked one by one: it writes __pycache__ beside them."""
    python = folder / triton.python_backend.name
    python.mkdir(parents=True)
    parts = {part.name: part for part in (*triton.python_backend.iterdir(), triton.stub) if part.is_file()}
    for name, part in parts.items():
        (python / name).symlink_to(part)
    for name in triton.backend_names() - {python.name}:
        (folder / name).symlink_to(triton.backends / name)


def remove_abandoned_homes() -> None:
    """Remove the homes (and shared memory) of servers whose every process is gone."""
    for home in Path(tempfile.gettempdir()).glob(f"{HOME_PREFIX}*"):
        with suppress(OSError):  # another of us was faster
            if _is_ours(home) and time.time() - home.lstat().st_mtime > _SETTLE_S:
                _remove_if_abandoned(home)


def _is_ours(home: Path) -> bool:
    """Whether we made it: what others name like one of ours must not take the shared memory of servers that run with it."""
    return _NAME.fullmatch(home.name) is not None and home.lstat().st_uid == os.geteuid()


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
