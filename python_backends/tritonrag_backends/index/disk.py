"""Writing that survives a crash: bytes reach the disk before the name that makes them visible does."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritonrag_client.errors import UnavailableError


class Disk:
    """The steps of publication. One seam, so that a test can end the process before any of them, or fill the disk."""

    def make_directory(self, path: Path) -> None:
        """Make a directory and those above it, where they are not there yet."""
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            self.sync(path.parent)

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file and bring its bytes to the disk."""
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def sync(self, path: Path) -> None:
        """Bring a file's bytes, or a directory's names, to the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or directory its name in one step, replacing what bore it, and bring the names to the disk."""
        source.replace(target)
        self.sync(target.parent)


DISK = Disk()


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """A full or read-only disk in words; the live version is not touched by it."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"the index {directory} can't be written: {error.strerror or error}; make room or allow writing there and try again "
            "(a version that was live still is)"
        ) from error
