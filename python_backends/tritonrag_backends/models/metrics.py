"""The own metrics of the models that batch; Triton serves them beside its own on the metrics port."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, get_args

import triton_python_backend_utils as pb_utils

from tritonrag_client.contract import Mode

if TYPE_CHECKING:  # a process that embeds or generates has no need of FAISS
    from tritonrag_backends.index import Index
    from tritonrag_backends.index.live import ReloadEvent
    from tritonrag_backends.index.result_cache import Answered


REFUSED: Final = "tritonrag_refused_total"
REFUSED_TEXT: Final = (
    "Requests not worked on, by code; overloaded: no room, or too long a wait; deadline: their time was over"
)


class EmbedderMetrics:
    """Tokens that were embedded: the real ones, and those computed with the padding among them."""

    def __init__(self) -> None:
        self._family = pb_utils.MetricFamily(
            name="tritonrag_embedder_tokens_total",
            description="Tokens embedded: kind real, and kind computed, which counts the padding too",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self._real, self._computed = (self._family.Metric(labels={"kind": kind}) for kind in ("real", "computed"))

    def embedded(self, real_tokens: int, computed_tokens: int) -> None:
        """Count one run."""
        self._real.increment(real_tokens)
        self._computed.increment(computed_tokens)


class DoorMetrics:
    """What was refused at a model's door, and how many questions wait behind it.

    Counted where a request is refused, which must be quick, and told to Triton by the batch.
    """

    def __init__(self, model: str, instance: str) -> None:
        self._refused_family = pb_utils.MetricFamily(
            name=REFUSED,
            description=REFUSED_TEXT,
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self._waiting_family = pb_utils.MetricFamily(
            name="tritonrag_waiting", description="Questions that wait in an instance", kind=pb_utils.MetricFamily.GAUGE
        )
        self._refused = {
            code: self._refused_family.Metric(labels={"model": model, "code": code})
            for code in ("overloaded", "deadline")
        }
        self._waiting = self._waiting_family.Metric(labels={"model": model, "model_instance": instance})
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def refused(self, code: str, requests: int = 1) -> None:
        """Count them."""
        with self._lock:
            self._counts[code] += requests

    def tell(self, waiting: int) -> None:
        """Tell Triton."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        for code, count in counts.items():
            self._refused[code].increment(count)
        self._waiting.set(waiting)


class RetrieverMetrics:
    """Which version each instance serves, what it gave up, how reloading went, how questions were searched and how many were known.

    A call of Triton's is a message to another process (measured: 15 to 40 us), so questions are counted by the batch.
    """

    def __init__(self, instance: str) -> None:
        """`instance` is Triton's name of this one: the gauges of several would overwrite each other.

        Its label is `model_instance`, because Prometheus gives every sample an `instance` of its own.
        """
        # Families are kept for the sake of their metrics: one that outlives its family hangs Triton's calls for tenths of a second.
        self._version_family = pb_utils.MetricFamily(
            name="tritonrag_index_version", description="Index version that is served", kind=pb_utils.MetricFamily.GAUGE
        )
        self._passages_family = pb_utils.MetricFamily(
            name="tritonrag_index_passages",
            description="Passages in the index version that is served",
            kind=pb_utils.MetricFamily.GAUGE,
        )
        self._reloads_family = pb_utils.MetricFamily(
            name="tritonrag_index_reloads_total",
            description="Tries to take up another index version; failed: the old one goes on being served",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self._degraded_family = pb_utils.MetricFamily(
            name="tritonrag_index_degraded",
            description="1 while something of the index was given up, such as its place on a GPU; answers say what",
            kind=pb_utils.MetricFamily.GAUGE,
        )
        self._searches_family = pb_utils.MetricFamily(
            name="tritonrag_retriever_searches_total",
            description="Questions by mode; cache hit: known already, or in the batch twice; miss: searched",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        labels = {"model_instance": instance}
        self._version, self._passages = (f.Metric(labels=labels) for f in (self._version_family, self._passages_family))
        self._degraded = self._degraded_family.Metric(labels=labels)
        self._told_degraded: bool | None = None
        self._reloads = {result: self._reloads_family.Metric(labels={"result": result}) for result in ("ok", "failed")}
        self._searches = {
            (mode, known): self._searches_family.Metric(labels={"mode": mode, "cache": "hit" if known else "miss"})
            for mode in get_args(Mode)
            for known in (False, True)
        }

    def serves(self, index: Index) -> None:
        """Set what is served."""
        self._version.set(index.version)
        self._passages.set(index.passage_count)
        self.degraded(index)

    def degraded(self, index: Index) -> None:
        """Set whether the index gave something up; to be told by the batch, and passed on where it has changed."""
        degraded = bool(index.degraded)
        if degraded != self._told_degraded:
            self._degraded.set(degraded)
            self._told_degraded = degraded

    def reloaded(self, event: ReloadEvent) -> None:
        """Count a reload, and set what is served since."""
        self.serves(event.index)
        self._reloads["ok" if event.error is None else "failed"].increment(1)

    def answered(self, modes: Sequence[Mode], answered: Answered) -> None:
        """Count a batch, of whose questions each has its mode."""
        for key, count in Counter(zip(modes, answered.known, strict=True)).items():
            self._searches[key].increment(count)
