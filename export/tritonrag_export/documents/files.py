"""Reading a whole file that may be anything."""

import stat
from pathlib import Path

from tritonrag_export.documents.errors import ContentError


def read_bytes(path: Path, max_bytes: int, *, advice: str, advice_if_long: str) -> bytes:
    """The bytes of a regular file that is not empty. Raises ContentError, which ends in the advice, and OSError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise ContentError(f"is not a regular file; {advice}")
    if status.st_size == 0:
        raise ContentError(f"is empty; {advice}")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)  # not st_size: a file may grow
    if len(data) > max_bytes:
        raise ContentError(f"has {status.st_size} bytes, over the limit of {max_bytes}; {advice_if_long}")
    return data
