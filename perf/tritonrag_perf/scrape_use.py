"""What a measurement cost: CPU time of server and client apart, the server's memory, and its metrics."""

import resource
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tritonrag.processes import session_members
from tritonrag_perf.process_use import cpu_seconds_of, memory_bytes
from tritonrag_perf.scrape import Scraped, Scraper


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What of a server can be seen: the processes of `session`, where it runs on this machine, and its metrics at `metrics`.

    `session` is a RunningServer's `pid`, `metrics` is "host:port".
    """

    session: int | None = None
    metrics: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What one measurement cost; None where the server could not be looked at.

    CPU times are milliseconds a question, user and system: of all processes of the server, and of the programs that asked.
    `server_pss_bytes` is the memory of all processes of the server at the end, pages that several share counted once.
    """

    questions: int
    client_cpu_ms: float
    server_cpu_ms: float | None = None
    server_pss_bytes: int | None = None
    metrics: Scraped | None = None


class Watching:
    """A measurement under `watch`; ask for its `use` after the `with` block."""

    def __init__(self, watch: Watch) -> None:
        self._session = watch.session
        self._scraper = None if watch.metrics is None else Scraper(watch.metrics)
        self._stack = ExitStack()
        self._client_cpu_s = 0.0
        self._server_cpu_s: float | None = None
        self._pss_bytes: int | None = None

    def __enter__(self) -> Self:
        if self._scraper is not None:
            self._stack.enter_context(self._scraper)
        if self._session is not None:
            self._server_cpu_s = -session_cpu_s(self._session)
        self._client_cpu_s = -children_cpu_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client_cpu_s += children_cpu_s()
        if self._session is not None and self._server_cpu_s is not None:
            self._server_cpu_s += session_cpu_s(self._session)
            self._pss_bytes = memory_bytes(process.pid for process in session_members(self._session))
        self._stack.__exit__(kind, error, trace)

    def use(self, questions: int) -> Use:
        """What the block cost, in which so many questions were answered, those of the warm-up included."""
        ms = 1e3 / max(questions, 1)
        return Use(
            questions=questions,
            client_cpu_ms=self._client_cpu_s * ms,
            server_cpu_ms=None if self._server_cpu_s is None else self._server_cpu_s * ms,
            server_pss_bytes=self._pss_bytes,
            metrics=None if self._scraper is None else self._scraper.scraped(),
        )


def session_cpu_s(session: int) -> float:
    """CPU time that the living processes of a session have taken, in seconds."""
    return cpu_seconds_of(process.pid for process in session_members(session))


def children_cpu_s() -> float:
    """CPU time of the programs that this process has started and that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
