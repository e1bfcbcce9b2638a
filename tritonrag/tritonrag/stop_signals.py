"""Ctrl-C, SIGTERM and a lost terminal as things to wait for, rather than exceptions that may strike anywhere."""

import os
import select
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Handler = Callable[[int, FrameType | None], Any] | int | None


class StopSignals:
    """A context manager that counts SIGINT, SIGTERM and SIGHUP; main thread only. `received` has them in order.

    A SIGHUP that is ignored stays so: nohup asks for that. An ignored SIGINT is counted: shells ignore it for every job that a
    script leaves in the background, and it ends such a server too.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._previous: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Self:
        self._readable, self._writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._previous_wakeup = signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
        self._previous = {number: signal.signal(number, self._count) for number in _STOPPING if number not in ignored}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        os.close(self._readable)
        os.close(self._writable)

    def wait(self, descriptor: int) -> None:
        """Sleep until a signal has come or `descriptor` is readable."""
        while not self.received:
            readable, _, _ = select.select([self._readable, descriptor], [], [])
            if descriptor in readable:
                return
            os.read(self._readable, 512)

    def _count(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)
