"""A program for test_index_publication: builds again and again, killed before each step in turn; prints what a reader then finds.

A program of its own because it forks, which a process that runs other tests must not.
"""

import json
import os
import signal
import sys
from pathlib import Path

from index_fakes import FakeEncoder, documents, lines

from tritonrag_backends.index import Index
from tritonrag_backends.index.disk import Disk
from tritonrag_export.indexing import build_index


class DeadlyDisk(Disk):
    """Ends the process, as kill -9 does, before step number `at`; a write is ended half way."""

    def __init__(self, at: int) -> None:
        self._left = at

    def _step(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def make_directory(self, path: Path) -> None:
        self._step()
        super().make_directory(path)

    def write(self, path: Path, data: bytes) -> None:
        if self._left == 0:
            path.write_bytes(data[: len(data) // 2])
        self._step()
        super().write(path, data)

    def sync(self, path: Path) -> None:
        self._step()
        super().sync(path)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)


def build(directory: Path, disk: Disk, count: int) -> None:
    build_index(documents(count), FakeEncoder(), directory, chunker=lines, disk=disk)


def killed_at(directory: Path, step: int) -> bool:
    child = os.fork()
    if child == 0:
        build(directory, DeadlyDisk(step), 4)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def main() -> None:
    directory = Path(sys.argv[1])
    build(directory, Disk(), 2)
    found = []
    for step in range(100):
        killed = killed_at(directory, step)
        index = Index.open(directory, fingerprint="f1")
        found.append({"killed": killed, "version": index.version, "passages": index.passage_count})
        if not killed:
            break
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
