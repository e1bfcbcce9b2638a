"""Triton's metrics over a measurement: what the counters grew by, and between what the gauges moved.

    with Scraper("127.0.0.1:8002") as scraper:
        ...
    scraper.scraped()

Source of the format: Prometheus text exposition 0.0.4. Of a histogram its sum and its count are kept, as counters;
the buckets are not.
"""

import http.client
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tritonrag_client.errors import BadRequestError, RagError, UnavailableError
from tritonrag_perf.spread import Spread

Kind = Literal["counter", "gauge"]

INTERVAL_S: Final = 0.5
OURS: Final = ("tritonrag_", "nv_")
_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All series at one moment, by their name with labels."""

    counters: Mapping[str, float]
    gauges: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """What was seen from the first reading to the last: growth of the counters that grew, and least, median and greatest of gauges.

    `missed` readings in between came to nothing.
    """

    counters: dict[str, float]
    gauges: dict[str, Spread]
    readings: int
    missed: int = 0


def parse(text: str) -> Reading:
    """The series of Triton and of our models in a page of metrics. Raises BadRequestError where it is none."""
    counters: dict[str, float] = {}
    gauges: dict[str, float] = {}
    try:
        for kind, sample in _samples(text):
            (counters if kind == "counter" else gauges)[_name(sample)] = sample.value
    except ValueError as error:
        raise BadRequestError(f"the metrics can't be read: {error}; is this Triton's metrics address?") from error
    return Reading(counters=counters, gauges=gauges)


def _samples(text: str) -> Iterator[tuple[Kind, Sample]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.startswith(OURS) or sample.name.endswith("_bucket"):
                continue
            counts = family.type == "counter" or (
                family.type in {"histogram", "summary"} and sample.name.endswith(("_sum", "_count"))
            )
            yield "counter" if counts else "gauge", sample


def _name(sample: Sample) -> str:
    """The series as PromQL writes it. Every model of ours has one version, so that label is left out."""
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()) if name != "version")
    return f"{sample.name}{{{labels}}}" if labels else sample.name


def summarise(readings: list[Reading], *, missed: int = 0) -> Scraped:
    """Sum up readings, first to last. Raises UnavailableError where a counter went down, for the server was another one then."""
    first, last = readings[0].counters, readings[-1].counters
    grown = {name: value - first.get(name, 0.0) for name, value in last.items()}
    if any(value < 0 for value in grown.values()):
        raise UnavailableError("the server's metrics went down while measuring: it was started anew; measure again")
    names = dict.fromkeys(name for reading in readings for name in reading.gauges)
    return Scraped(
        counters={name: value for name, value in grown.items() if value},
        gauges={name: Spread.of(r.gauges[name] for r in readings if name in r.gauges) for name in names},
        readings=len(readings),
        missed=missed,
    )


def read(address: str) -> Reading:
    """The metrics at `address` ("host:port") now. Raises UnavailableError where they can't be had, BadRequestError
    where they are none.
    """
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"there are no metrics at {address}: {error}; give the server's metrics port") from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise BadRequestError(
            f"{address} answers status {response.status} for /metrics; give the server's metrics port"
        )
    return parse(text)


class Scraper:
    """Reads the metrics at both ends of a `with` block and every `interval_s` in between, in a thread of its own.

    Raises what `read` does at either end; a reading in between that fails is counted.
    """

    def __init__(self, address: str, *, interval_s: float = INTERVAL_S) -> None:
        self._address = address
        self._interval_s = interval_s
        self._readings: list[Reading] = []
        self._missed = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="scraper", daemon=True)

    def __enter__(self) -> Self:
        self._readings.append(read(self._address))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if kind is None:
            self._readings.append(read(self._address))

    def scraped(self) -> Scraped:
        """What was seen; after the block."""
        return summarise(self._readings, missed=self._missed)

    def _read_on(self) -> None:
        while not self._done.wait(self._interval_s):
            try:
                self._readings.append(read(self._address))
            except RagError:
                self._missed += 1
