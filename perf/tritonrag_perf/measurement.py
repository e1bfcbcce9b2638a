"""What one run of perf_analyzer measured, read from the files that it writes.

Source of the formats: perf_analyzer 2.51.0, `-f` (CSV, microseconds) and `--profile-export-file` (JSON, nanoseconds).
"""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritonrag_client.errors import InternalError

_REQUEST_COUNT = re.compile(r"^\s*Request count: (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Percentiles of a duration, in milliseconds."""

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of_ns(cls, durations_ns: Sequence[int]) -> "Percentiles":
        """Percentiles of at least one duration, interpolated linearly."""
        p50, p90, p95, p99 = (float(value) / 1e6 for value in np.percentile(durations_ns, (50, 90, 95, 99)))
        return cls(p50_ms=p50, p90_ms=p90, p95_ms=p95, p99_ms=p99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run.

    `latency` is the time to the last response of a request, `first_response` that to the first one of a streamed answer.
    `stable` is False where the windows went on differing by more than was asked for. `client_cores` is the CPU time that
    perf_analyzer itself took, in seconds per second: on a loopback test the server did not have it.
    """

    requests: int
    requests_per_s: float
    latency: Percentiles
    first_response: Percentiles | None
    stable: bool
    client_cores: float


def read_request_count(console: str) -> int:
    """How many requests the percentiles are made of; the CSV does not say. Raises InternalError."""
    match = _REQUEST_COUNT.search(console)
    if match is None:
        raise InternalError(
            f"perf_analyzer printed no request count but {console[-200:]!r}; is this a new version of it?"
        )
    return int(match[1])


def read_report(path: Path) -> tuple[float, Percentiles]:
    """Requests per second and latency from the CSV of a run at one concurrency. Raises InternalError.

    For a decoupled model perf_analyzer 2.51.0 announces that it takes the first response, yet what it reports is the
    time to the last one: measured with ten responses 4.5 ms apart, 40.4 ms against 6.2 ms to the first.
    """
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    if len(rows) != 1:
        raise InternalError(
            f"perf_analyzer's report has {len(rows)} rows where one was expected; is this a new version of it?"
        )
    row = rows[0]
    try:
        p50, p90, p95, p99 = (float(row[f"p{rank} latency"]) / 1e3 for rank in (50, 90, 95, 99))
        rate = float(row["Inferences/Second"])
    except (KeyError, TypeError, ValueError) as error:
        raise InternalError(f"perf_analyzer's report lacks a figure ({error}); is this a new version of it?") from error
    return rate, Percentiles(p50_ms=p50, p90_ms=p90, p95_ms=p95, p99_ms=p99)


def read_first_responses(path: Path) -> Percentiles:
    """Time from sending a request to its first response, from the profile export. Raises InternalError."""
    try:
        requests = json.loads(path.read_bytes())["experiments"][0]["requests"]
        durations_ns = [r["response_timestamps"][0] - r["timestamp"] for r in requests if r["response_timestamps"]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InternalError(
            f"perf_analyzer's profile export is not as expected ({error!r}); is this a new version?"
        ) from error
    if not durations_ns:
        raise InternalError("perf_analyzer's profile export holds no response; measure for longer")
    return Percentiles.of_ns(durations_ns)
