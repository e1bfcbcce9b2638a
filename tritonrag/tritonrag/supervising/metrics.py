"""The supervisor's own metrics, in a registry of their own: Triton has its own at another port."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class SupervisorMetrics:
    """Counters and gauges, safe to use from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._events = Counter(
            "tritonrag_supervisor_events", "What happened.", ["event", "model"], registry=self._registry
        )
        self._canary = Histogram(
            "tritonrag_supervisor_canary_seconds",
            "How long a canary took that was answered.",
            ["model"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._ready = Gauge("tritonrag_supervisor_ready", "1 where the server is ready.", registry=self._registry)
        self._restarts = Counter("tritonrag_supervisor_restarts", "Restarts of Triton.", registry=self._registry)
        self._repairs = Counter(
            "tritonrag_supervisor_repairs", "Models that were reloaded.", ["model"], registry=self._registry
        )

    def event(self, event: str, model: str) -> None:
        """Count one."""
        self._events.labels(event, model).inc()

    def canary(self, model: str, took_s: float) -> None:
        """A canary was answered."""
        self._canary.labels(model).observe(took_s)

    def ready(self, *, is_ready: bool) -> None:
        """As /health/ready says."""
        self._ready.set(int(is_ready))

    def restarted(self) -> None:
        """Triton was started again."""
        self._restarts.inc()

    def repaired(self, model: str) -> None:
        """A model was reloaded."""
        self._repairs.labels(model).inc()

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
