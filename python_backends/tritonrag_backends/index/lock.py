"""One writer at a time: an exclusive lock that the kernel drops when its holder ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritonrag_backends.index.format import LOCK
from tritonrag_client.errors import UnavailableError


@contextmanager
def write_lock(directory: Path) -> Iterator[None]:
    """Hold the index directory's lock; readers need none. The directory must be there.

    Raises UnavailableError at once where another process, or another thread of this one, holds it.
    """
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise UnavailableError(
                f"another process (pid {holder}) is writing the index {directory}; wait until it is done and try again"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
