"""A steady load while something is broken: no answer may be wrong, and every request must end by its deadline.

    references = take_references(url)
    with Load(url, references) as load:
        ...break something, wait for what should come...
    assert load.tally.faults() == []

Clients live in a thread with an event loop of its own, so that a test may wait as it likes. They do not try again, so that a
failure is seen, unless they are given a retry policy.
"""

import asyncio
import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt

from tritonrag_client import Answer, AsyncRagClient, InternalError, RagError, RetryPolicy, SearchResult, Timeouts

QUESTIONS: Final = (
    "How do I parse a JSON document?",
    "How can I read rows from a CSV file?",
    "Which function gives the largest elements?",
    "How do I set the level of a logger?",
    "What does a context manager do?",
    "How is the median computed?",
)
Kind = Literal["embed", "search", "ask", "ask_rag"]
KINDS: Final[tuple[Kind, ...]] = ("embed", "search", "ask", "ask_rag")

Vector = npt.NDArray[np.float32]
Reply = Vector | SearchResult | Answer

GRACE_S: Final = 3.0  # past a request's deadline: leaving an answer takes up to a second, and the machine is busy
_CITED: Final = re.compile(r"\S.*? \[\d+\]")
ONCE: Final = RetryPolicy(attempts=1)
_SAME_SCORE: Final = 1e-3
_SAME_VECTOR: Final = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request. `error` is the code of its failure, "" for an answer; `wrong` says what is wrong with an answer."""

    kind: Kind
    began_s: float
    took_s: float
    error: str = ""
    message: str = ""
    wrong: str = ""

    @property
    def ended_s(self) -> float:
        """When it was answered, or failed."""
        return self.began_s + self.took_s


@dataclass(slots=True)
class Tally:
    """Every request so far, in the order in which they ended; times are those of time.monotonic."""

    deadline_s: float
    outcomes: list[Outcome] = field(default_factory=list)

    def answered(self, *, after_s: float = 0.0, kind: Kind | None = None) -> list[Outcome]:
        """Right answers to requests that began after a time."""
        return [
            one
            for one in list(self.outcomes)
            if not one.error and not one.wrong and one.began_s >= after_s and kind in {None, one.kind}
        ]

    def failed(self, *, after_s: float = 0.0) -> list[Outcome]:
        """Failures of requests that began after a time."""
        return [one for one in list(self.outcomes) if one.error and one.began_s >= after_s]

    def wrong(self) -> list[Outcome]:
        """Answers that are not what they were before."""
        return [one for one in list(self.outcomes) if one.wrong]

    def late(self) -> list[Outcome]:
        """Requests that went on past their deadline."""
        return [one for one in list(self.outcomes) if one.took_s > self.deadline_s + GRACE_S]

    def faults(self) -> list[Outcome]:
        """What may never be, whatever is broken."""
        return [*self.wrong(), *self.late()]

    def codes(self, *, after_s: float = 0.0) -> Counter[str]:
        """How often each code failed."""
        return Counter(one.error for one in self.failed(after_s=after_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The answers of a server that is well, by kind and question."""

    answers: Mapping[tuple[Kind, str], Reply]

    def check(self, kind: Kind, question: str, answer: Reply) -> str:
        """What is wrong with an answer; "" where it is the one that was given before."""
        if isinstance(answer, SearchResult | Answer) and answer.degraded:
            return ""  # it says itself that it is not the whole answer
        return _DIFFERENCE[kind](answer, self.answers[kind, question])


def take_references(url: str, *, timeout_s: float = 30.0, kinds: tuple[Kind, ...] = KINDS) -> References:
    """Ask every question in every way, once. Raises RagError."""

    async def take() -> References:
        async with _Asker(url, timeout_s) as asker:
            return References(answers={(kind, q): await asker.ask(kind, q) for kind in kinds for q in QUESTIONS})

    return asyncio.run(take())


class Load:
    """About `rate_per_s` requests a second, of every kind in turn, whatever is answered; a context manager."""

    def __init__(
        self,
        url: str | Sequence[str],
        references: References,
        *,
        rate_per_s: float = 20.0,
        deadline_s: float = 5.0,
        kinds: tuple[Kind, ...] = KINDS,
        retry: RetryPolicy = ONCE,
    ) -> None:
        """`url` is what a client takes: of one server, or several."""
        self.tally = Tally(deadline_s=deadline_s)
        self._url, self._references, self._pause_s, self._kinds = url, references, 1 / rate_per_s, kinds
        self._retry = retry
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(self.tally.deadline_s + 10 * GRACE_S)
        if self._thread.is_alive():
            raise InternalError(f"a request does not end, {self.tally.deadline_s:g} s after its deadline and more")
        if self._error is not None:
            raise self._error

    def answered_since(self, since_s: float, *, each: int = 3) -> bool:
        """Whether requests that began after a time were answered rightly, so many of every kind."""
        seen = Counter(one.kind for one in self.tally.answered(after_s=since_s))
        return all(seen[kind] >= each for kind in self._kinds)

    def _run(self) -> None:
        try:
            asyncio.run(self._ask_on())
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            self._error = error

    async def _ask_on(self) -> None:
        running: set[asyncio.Task[None]] = set()
        async with _Asker(self._url, self.tally.deadline_s, self._retry) as asker:
            turns = ((kind, question) for question in itertools.cycle(QUESTIONS) for kind in self._kinds)
            next_s = time.monotonic()
            while not self._ended.is_set():
                task = asyncio.create_task(self._one(asker, *next(turns)))
                running.add(task)
                task.add_done_callback(running.discard)
                next_s = max(next_s + self._pause_s, time.monotonic() - 1.0)
                await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            await asyncio.gather(*running)

    async def _one(self, asker: "_Asker", kind: Kind, question: str) -> None:
        began_s = time.monotonic()
        error = message = wrong = ""
        try:
            wrong = self._references.check(kind, question, await asker.ask(kind, question))
        except RagError as failure:
            error, message = failure.code, failure.message
        self.tally.outcomes.append(
            Outcome(
                kind=kind,
                began_s=began_s,
                took_s=time.monotonic() - began_s,
                error=error,
                message=message,
                wrong=wrong,
            )
        )


class _Asker:
    """Clients of the same servers, one for each path to an answer."""

    def __init__(self, url: str | Sequence[str], timeout_s: float, retry: RetryPolicy = ONCE) -> None:
        timeouts = Timeouts(connect_s=min(2.0, timeout_s), total_s=timeout_s)
        self._client = AsyncRagClient(url, timeouts=timeouts, retry=retry)
        self._rag = AsyncRagClient(url, timeouts=timeouts, retry=retry, model="rag")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in (self._client, self._rag):
            with suppress(RagError):
                await client.close()

    async def ask(self, kind: Kind, question: str) -> Reply:
        calls: dict[Kind, Callable[[], Awaitable[Reply]]] = {
            "embed": lambda: self._client.embed(question),
            "search": lambda: self._client.search(question),
            "ask": lambda: self._client.ask(question, max_tokens=200),
            "ask_rag": lambda: self._rag.ask(question, max_tokens=200),
        }
        return await calls[kind]()


def _vectors_differ(vector: Vector, wanted: Vector) -> str:
    cosine = float(np.dot(vector, wanted))
    return "" if cosine > _SAME_VECTOR else f"the vector's cosine with the one before is {cosine:.4f}"


def _searches_differ(found: SearchResult, wanted: SearchResult) -> str:
    ids, wanted_ids = ([one.passage_id for one in result.passages] for result in (found, wanted))
    if ids != wanted_ids:
        return f"passages {ids} instead of {wanted_ids}"
    texts, wanted_texts = ([one.passage.text for one in result.passages] for result in (found, wanted))
    scores = np.array([one.score for one in found.passages]) - np.array([one.score for one in wanted.passages])
    if texts != wanted_texts or np.abs(scores).max(initial=0) > _SAME_SCORE:
        return "the passages' texts or scores are others"
    return ""


def _answers_differ(answer: Answer, wanted: Answer) -> str:
    if answer.finish_reason != wanted.finish_reason:
        return f"it ended with {answer.finish_reason!r} instead of {wanted.finish_reason!r}"
    ids, wanted_ids = ([one.passage_id for one in one_of.sources] for one_of in (answer, wanted))
    if ids != wanted_ids:
        return f"sources {ids} instead of {wanted_ids}"
    # The order hangs on the best score alone, which differs a little in other company.
    if sorted(_CITED.findall(answer.text)) != sorted(_CITED.findall(wanted.text)):
        return f"{answer.text!r} instead of {wanted.text!r}"
    return ""


_DIFFERENCE: Final[dict[Kind, Callable[[Any, Any], str]]] = {
    "embed": _vectors_differ,
    "search": _searches_differ,
    "ask": _answers_differ,
    "ask_rag": _answers_differ,
}
