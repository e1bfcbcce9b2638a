"""Numbers of passages as people write them: 10k, 100k, 1M."""

import re
from typing import Final

from tritonrag_client.errors import BadRequestError

_FACTORS: Final = {"": 1, "k": 1_000, "M": 1_000_000}
_SIZE: Final = re.compile(r"([1-9]\d{0,11})([kM]?)")


def parse_size(text: str) -> int:
    """The number that is meant, 1 or more. Raises BadRequestError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise BadRequestError(f"{text!r} is no number of passages; write it as 10000, 10k or 1M")
    return int(match[1]) * _FACTORS[match[2]]


def size_name(rows: int) -> str:
    """The short form where it is as exact, else the number with commas."""
    for suffix in ("M", "k"):
        if rows and rows % _FACTORS[suffix] == 0:
            return f"{rows // _FACTORS[suffix]}{suffix}"
    return f"{rows:,}"
