"""A segment's files held to their sha256, each once for all processes of a server, which share the work where they open it at once.

Reading a million passages' files takes a core a second and more, and every instance of `retrieve` and `retriever` opens the index.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tritonrag_backends.index.arrays import check_file
from tritonrag_backends.index.format import FileRecord, SharedFile
from tritonrag_backends.run_dir import run_dir

_NOTES: Final = "checked-files"

Records = Mapping[Path, FileRecord | SharedFile]


def check_files(files: Records, *, verify: bool) -> None:
    """Hold each file to its size and, with `verify`, to its sha256, unless a process of this server has done so.

    Raises InternalError that names the file.
    """
    for path, record in files.items():
        check_file(path, record, verify=False)
    if not verify:
        return
    if (folder := run_dir()) is None:
        for path, record in files.items():
            check_file(path, record, verify=True)
    else:
        _share(files, folder / _NOTES)


def _share(files: Records, notes: Path) -> None:
    """First what nobody is at, the largest first; then wait for the others."""
    notes.mkdir(exist_ok=True)
    largest_first = sorted(files, key=lambda path: files[path].bytes, reverse=True)
    others = [path for path in largest_first if not _check_once(path, files[path], notes, wait=False)]
    for path in others:
        _check_once(path, files[path], notes, wait=True)


def _check_once(path: Path, record: FileRecord | SharedFile, notes: Path, *, wait: bool) -> bool:
    """Whether it is known to be whole; False where another process is at it and `wait` is false.

    A note is of the very file: a file that was changed or replaced since is another one.
    """
    try:
        status = path.stat()
    except OSError:
        check_file(path, record, verify=True)  # which says what is wrong
        raise
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    note = notes / "-".join([record.sha256, *map(str, identity)])
    if note.exists():
        return True
    descriptor = os.open(note.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if not note.exists():
            check_file(path, record, verify=True)
            note.touch()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
