"""Files of an index before anything reads them: held to their records, then mapped."""

import hashlib
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.format import ADVICE, FileRecord, SharedFile
from tritonrag_client.errors import InternalError


def check_file(path: Path, record: FileRecord | SharedFile, *, verify: bool) -> None:
    """Hold a file to its size and, with `verify`, to its sha256. Raises InternalError that names the file."""
    try:
        with path.open("rb") as file:
            found = file.seek(0, 2)
            if found != record.bytes:
                raise damaged(path, f"it has {found} bytes where the manifest says {record.bytes}")
            file.seek(0)
            if verify and hashlib.file_digest(file, "sha256").hexdigest() != record.sha256:
                raise damaged(path, "its sha256 is not the manifest's")
    except OSError as error:
        raise damaged(path, f"it can't be read ({error.strerror})") from error


def record_file(path: Path) -> FileRecord:
    """Size and sha256 of a file as it lies on the disk."""
    with path.open("rb") as file:
        return FileRecord(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Map a verified .npy file. Raises InternalError where it holds another type or shape."""
    try:
        array = _map(path, empty=0 in shape)
    except (ValueError, EOFError, OSError) as error:
        raise damaged(path, "it is no .npy file") from error
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise damaged(path, f"it holds {array.dtype} {array.shape} where the manifest says {dtype} {shape}")
    return np.asarray(array)


def _map(path: Path, *, empty: bool) -> npt.NDArray[Any]:
    """Not numpy.load, which takes a file for what its first bytes say that it is."""
    if empty:  # NumPy can't map an array without elements; reading one is as cheap
        with path.open("rb") as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))  # type: ignore[no-untyped-call]
    return np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call, no-any-return]


def map_bytes(path: Path) -> mmap.mmap:
    """Map a verified file that is not empty."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (ValueError, OSError) as error:
        raise damaged(path, "it can't be mapped") from error


def damaged(path: Path, why: str) -> InternalError:
    """The error that says which file is not what it should be; the path is told from the index directory on."""
    where = "/".join(path.parts[-3:] if path.parent.parent.name == "segments" else path.parts[-2:])
    return InternalError(f"the index file {where} is damaged: {why}; {ADVICE}")
