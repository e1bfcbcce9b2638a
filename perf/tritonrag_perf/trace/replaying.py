"""Sends a trace's questions when they are due, whether the ones before are answered or not (an open loop).

A server that falls behind therefore meets the questions that real users would have sent meanwhile, and a question's latency counts
from when it was due: what the sender itself was late is part of it (no coordinated omission) and is told apart too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tritonrag_client.contract import Passage
from tritonrag_client.errors import RagError
from tritonrag_perf.trace.schedule import Due

BROKEN_OFF = "broken_off"  # the code of a streamed answer that ended in the middle


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back: the passages found or cited; whether something was given up; whether the answer broke off."""

    passages: tuple[Passage, ...]
    degraded: bool = False
    broken_off: bool = False


class Send(Protocol):
    """Asks one question, and calls `first` when the first piece of the answer is there. Raises RagError."""

    def __call__(self, question: str, first: Callable[[], None]) -> Awaitable[Reply]:
        """Send and wait."""
        ...


class Clock(Protocol):
    """Time in seconds."""

    def now(self) -> float:
        """It never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let others run meanwhile."""
        ...


class RealClock:
    """The machine's."""

    def now(self) -> float:
        """Monotonic."""
        return time.perf_counter()

    async def sleep(self, seconds: float) -> None:
        """As asyncio does."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One question's times in seconds since the replay began. `code` is "" for an answer; `first_s` None: nothing came.

    `found`: whether a passage that the question is about was among those that came back; None where it is about none.
    """

    due_s: float
    sent_s: float
    first_s: float | None
    done_s: float
    code: str = ""
    degraded: bool = False
    found: bool | None = None

    @property
    def late_ms(self) -> float:
        """How long after it was due it was sent."""
        return 1000 * (self.sent_s - self.due_s)

    @property
    def latency_ms(self) -> float:
        """From when it was due to the last of the answer."""
        return 1000 * (self.done_s - self.due_s)

    @property
    def service_ms(self) -> float:
        """From when it was sent: what a client that measures itself would see."""
        return 1000 * (self.done_s - self.sent_s)

    @property
    def first_ms(self) -> float | None:
        """From when it was due to the first of the answer."""
        return None if self.first_s is None else 1000 * (self.first_s - self.due_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayer:
    """Replays requests by `send`. `texts` and `aims` by the question's id, as `Texts` has them."""

    send: Send
    texts: Mapping[int, str]
    aims: Mapping[int, tuple[Passage, ...]]
    clock: Clock

    async def run(self, due: Sequence[Due]) -> list[Outcome]:
        """All outcomes, in the order in which they were due, once the last answer is there or failed."""
        began_s = self.clock.now()
        tasks: list[asyncio.Task[Outcome]] = []
        async with asyncio.TaskGroup() as group:
            for each in due:
                await self.clock.sleep(max(began_s + each.at_s - self.clock.now(), 0.0))
                tasks.append(group.create_task(self._one(each, began_s)))
        return [task.result() for task in tasks]

    async def _one(self, due: Due, began_s: float) -> Outcome:
        firsts: list[float] = []
        id_ = due.request.question.id
        sent_s = self.clock.now() - began_s
        reply, code = None, ""
        try:
            reply = await self.send(self.texts[id_], lambda: firsts.append(self.clock.now() - began_s))
        except RagError as error:
            code = error.code
        return Outcome(
            due_s=due.at_s,
            sent_s=sent_s,
            first_s=firsts[0] if firsts else None,
            done_s=self.clock.now() - began_s,
            code=BROKEN_OFF if reply is not None and reply.broken_off else code,
            degraded=reply is not None and reply.degraded,
            found=None if reply is None or not self.aims[id_] else _found(self.aims[id_], reply.passages),
        )


def _found(aims: Sequence[Passage], passages: Sequence[Passage]) -> bool:
    return not {(p.uri, p.start, p.end) for p in aims}.isdisjoint({(p.uri, p.start, p.end) for p in passages})
