"""The server's health as several threads see it: the supervisor and the main thread write, the endpoint reads."""

import threading
from dataclasses import replace
from datetime import UTC, datetime

from tritonrag.supervising.events import TRITON, Events
from tritonrag.supervising.judge import Judge
from tritonrag.supervising.metrics import SupervisorMetrics
from tritonrag.supervising.report import Degraded, HealthReport


class Status:
    """Ready is what the judge says, and false once the server is draining. A change of it is an event."""

    def __init__(self, events: Events, metrics: SupervisorMetrics) -> None:
        self._events, self._metrics = events, metrics
        self._lock = threading.Lock()
        self._judged_ready = False
        self._report = HealthReport(degraded=(Degraded(stage=TRITON, reason="it is starting"),))
        metrics.ready(is_ready=False)

    @property
    def report(self) -> HealthReport:
        """The newest one."""
        return self._report

    def judged(self, judge: Judge) -> None:
        """Take what the judge says now."""
        with self._lock:
            self._judged_ready = judge.is_ready
            self._change(
                replace(
                    self._report,
                    degraded=judge.degraded(),
                    restarts=judge.restarts,
                    repairs=judge.repairs,
                    models=judge.states(),
                )
            )

    def unwatched(self) -> None:
        """Nobody watches: ready is what Triton said when it started."""
        with self._lock:
            self._judged_ready = True
            self._change(replace(self._report, degraded=()), ready_because="Triton says that every model is ready")

    def drain(self) -> None:
        """Not ready from now on, whatever is judged."""
        with self._lock:
            self._events.tell("draining", TRITON, "finishing what has begun")
            self._change(replace(self._report, draining=True))

    def ending(self) -> None:
        """Not ready any more: nobody watches, and Triton is being stopped."""
        with self._lock:
            self._judged_ready = False
            last = Degraded(stage=TRITON, reason="it is not watched any more, and is being stopped")
            self._change(replace(self._report, degraded=(*self._report.degraded, last)))

    def _change(self, report: HealthReport, ready_because: str = "every model answers its canary") -> None:
        ready = self._judged_ready and not report.draining
        if ready == self._report.ready:
            self._report = replace(report, since=self._report.since)
            return
        self._report = replace(report, ready=ready, since=datetime.now(UTC))
        self._metrics.ready(is_ready=ready)
        if ready:
            self._events.tell("ready", TRITON, ready_because)
        elif not report.draining:
            self._events.tell("not_ready", TRITON, _reasons(report))


def _reasons(report: HealthReport) -> str:
    return "; ".join(f"{one.stage}: {one.reason}" for one in report.degraded) or "it was told to stop"
