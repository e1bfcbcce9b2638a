"""How long to wait before an answer is tried again."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_FIRST_S = 0.25
_LONGEST_S = 4.0


def pause_s(tries: int, retry_after_s: float | None, rng: random.Random) -> float:
    """Seconds after the given number of tries: full jitter, so that requests that failed together do not come back together.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/. What the server asks for is kept to, and the jitter
    comes on top.
    """
    jitter_s = rng.uniform(0, min(_LONGEST_S, _FIRST_S * 2 ** min(tries - 1, 10)))
    return jitter_s + (retry_after_s or 0)


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or as a date; None where it asks for nothing readable."""
    text = (header or "").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
        left_s = (date.replace(tzinfo=date.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, OverflowError):
        return None
    return max(left_s, 0.0)
