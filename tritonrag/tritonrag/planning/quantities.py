"""Numbers as people write them, read and written: 50M passages, 12.3 GB."""

import re
from typing import Final

from tritonrag_client.errors import BadRequestError

GB: Final = 10**9  # as data sheets count

_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_COUNT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmb]?)", re.IGNORECASE)
_MOST_COUNT: Final = 10**13


def parse_count(text: str, *, what: str) -> int:
    """A whole number with an optional k, M or B (thousand, million, billion): 300k, 50M, 1.2B.

    Raises BadRequestError for anything else, for none, and for more than 10**13.
    """
    match = _COUNT.fullmatch(text.strip().replace(",", "").replace("_", ""))
    count = round(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if not 1 <= count <= _MOST_COUNT:
        raise BadRequestError(f"{what} is {text!r}; write a number from 1 on, as in 300k, 50M or 1.2B")
    return count


def gb(count: float) -> str:
    """Bytes as GB of 10**9, with three digits that count: 0.512 GB, 7.42 GB, 141 GB."""
    return f"{three_digits(count / GB)} GB"


def ms(seconds: float) -> str:
    """Seconds as milliseconds."""
    return f"{three_digits(seconds * 1000)} ms"


def three_digits(value: float) -> str:
    """The value with about three digits that count, and thousands set apart."""
    for least, digits in ((100.0, 0), (10.0, 1), (1.0, 2)):
        if value >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.3f}"
