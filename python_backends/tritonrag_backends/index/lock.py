"""One writer at a time: exclusive locks that the kernel drops when their holder ends, however it ends."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tritonrag_backends.index.format import LOCK, MERGING
from tritonrag_client.errors import UnavailableError

_POLL_S: Final = 0.05


@contextmanager
def write_lock(directory: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the index directory's lock for publishing; readers need none. The directory must be there.

    Raises UnavailableError where another process, or another thread of this one, holds it for longer than `wait_s`.
    """
    with _lock(directory, LOCK, "writing", wait_s):
        yield


@contextmanager
def merge_lock(directory: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of the one process that merges segments; others may publish meanwhile. Raises as `write_lock`."""
    with _lock(directory, MERGING, "merging segments of", wait_s):
        yield


def is_merging(directory: Path) -> bool:
    """Whether some process holds the merge lock."""
    try:
        descriptor = os.open(directory / MERGING, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _lock(directory: Path, name: str, doing: str, wait_s: float) -> Iterator[None]:
    descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wait_s
        while not _try(descriptor):
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                raise UnavailableError(
                    f"another process (pid {holder}) is {doing} the index {directory}; wait until it is done and try again, "
                    "or let this one wait (--wait-s)"
                )
            time.sleep(_POLL_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True
