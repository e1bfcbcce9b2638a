"""A program for test_index_publication: changes an index again and again, killed before each step in turn; prints what
a reader then finds.

A program of its own because it forks, which a process that runs other tests must not.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from index_fakes import FakeEncoder, document, documents

from tritonrag_backends.index import Index
from tritonrag_backends.index.disk import Disk
from tritonrag_backends.index.merging import merge
from tritonrag_backends.index.operations import delete_documents, rollback, status, verify
from tritonrag_export.indexing import BuildOptions, add_documents, build_index


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


def build(directory: Path, disk: Disk) -> None:
    build_index(documents(4), [FakeEncoder()], directory, options=BuildOptions(kind="hnsw"), disk=disk)


def add(directory: Path, disk: Disk) -> None:
    add_documents([document("d0.md", "changed"), document("n.md", "new")], [FakeEncoder()], directory, disk=disk)


def delete(directory: Path, disk: Disk) -> None:
    delete_documents(directory, ["d1.md"], missing_ok=True, disk=disk)


def merge_all(directory: Path, disk: Disk) -> None:
    merge(directory, everything=True, disk=disk)


def go_back(directory: Path, disk: Disk) -> None:
    rollback(directory, 1, disk=disk)


CHANGES: dict[str, Callable[[Path, Disk], None]] = {
    "build": build,
    "add": add,
    "delete": delete,
    "merge": merge_all,
    "rollback": go_back,
}


def prepare(directory: Path) -> None:
    build_index(documents(3), [FakeEncoder()], directory)
    add_documents([document("e.md", "text e")], [FakeEncoder()], directory)


def killed_at(change: Callable[[Path, Disk], None], directory: Path, step: int) -> bool:
    child = os.fork()
    if child == 0:
        change(directory, DeadlyDisk(step))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def main() -> None:
    change, folder = CHANGES[sys.argv[1]], Path(sys.argv[2])
    prepare(folder / "before")
    found = []
    for step in range(200):
        directory = folder / str(step)
        shutil.copytree(folder / "before", directory)
        killed = killed_at(change, directory, step)
        problems = verify(directory)
        index = Index.open(directory, fingerprint="f1")
        entry = {"killed": killed, "version": index.version, "passages": index.passage_count, "problems": problems}
        change(directory, Disk())  # and now undisturbed
        after = status(directory)
        entry |= {"retried": after.manifest.index_version, "left": after.unfinished_bytes}
        entry["problems"] = [*problems, *verify(directory)]
        found.append(entry)
        if not killed:
            break
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
