"""The stages' own metrics; Triton serves them beside its own on the metrics port."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from tritonrag_backends.generation.engine import Delta


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


class GeneratorMetrics:
    """Answers that run now, and those that ended, by how they ended."""

    def __init__(self) -> None:
        self._running_family = pb_utils.MetricFamily(
            name="tritonrag_generations_running",
            description="Generations that run now",
            kind=pb_utils.MetricFamily.GAUGE,
        )
        self._ended_family = pb_utils.MetricFamily(
            name="tritonrag_generations_total",
            description="Generations that ended, by finish_reason; error counts the refused ones too",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self._degraded_family = pb_utils.MetricFamily(
            name="tritonrag_generations_degraded_total",
            description="Answers that say in `degraded` that something was given up",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self._running = self._running_family.Metric(labels={})
        self._degraded = self._degraded_family.Metric(labels={})
        reasons = ("stop", "length", "cancelled", "error")
        self._ended = {reason: self._ended_family.Metric(labels={"finish_reason": reason}) for reason in reasons}

    def running(self, count: int) -> None:
        """Set how many run now."""
        self._running.set(count)

    def sent(self, delta: Delta) -> None:
        """Count a delta that ends an answer, and one that says what was given up."""
        if delta.finish_reason:
            self._ended[delta.finish_reason].increment(1)
        if delta.degraded:
            self._degraded.increment(1)

    def failed(self) -> None:
        """Count an answer that ended in an error."""
        self._ended["error"].increment(1)
