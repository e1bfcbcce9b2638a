"""Triton's own metrics while a load runs: the greatest value of each that was seen."""

import threading
import urllib.request
from collections import defaultdict
from types import TracebackType
from typing import Final, Self

from prometheus_client.parser import text_string_to_metric_families

from tritonrag.launcher import RunningServer

_EVERY_S: Final = 0.5
_TIMEOUT_S: Final = 10


def read_metrics(server: RunningServer) -> dict[str, float]:
    """Every sample's value by name, summed over its labels. Raises OSError where the server does not answer."""
    url = f"http://{server.host}:{server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    values: dict[str, float] = defaultdict(float)
    for sample in (sample for family in families for sample in family.samples):
        values[sample.name] += sample.value
    return dict(values)


class MetricsWatch:
    """Reads the metrics twice a second in a thread of its own while the context lasts; the last time at its end."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="metrics-watch", daemon=True)
        self.most: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            ended = self._ended.wait(_EVERY_S)
            try:
                now = read_metrics(self._server)
            except OSError:  # busy: the next look will do
                now = {}
            self.most = {
                name: max(now.get(name, 0.0), self.most.get(name, 0.0)) for name in self.most.keys() | now.keys()
            }
            if ended:
                return
