"""Mixed traffic: which operation comes when, and what became of it. No Locust here; perf/locust/mixed.py sends it.

Latency counts from the moment at which a request was due, not from the one at which it was sent: a client that falls behind must
not hide the wait (coordinated omission, G. Tene).
"""

import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from tritonrag_client import RagClient
from tritonrag_client.errors import BadRequestError, InternalError, RagError

Operation = Literal["search", "ask", "stream", "cancel"]
OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)
STREAMING: Final = frozenset({"stream", "cancel"})  # those that have a first token
NOT_SENT: Final = "not_sent"  # code of a request for which the client had no room


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How often each operation comes, by weight; `cancel` streams an answer and leaves after its first piece."""

    search: float = 60.0
    ask: float = 10.0
    stream: float = 20.0
    cancel: float = 10.0

    def __post_init__(self) -> None:
        weights = self.weights()
        if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
            raise BadRequestError(f"the mix is {self}; give weights of 0 or more, and one above 0")

    def __str__(self) -> str:
        return ",".join(f"{name}={weight:g}" for name, weight in self.weights().items())

    @classmethod
    def parse(cls, text: str) -> "Mix":
        """From "search=60,stream=40"; what is not named does not come. Raises BadRequestError."""
        given = dict.fromkeys(OPERATIONS, 0.0)
        for part in filter(None, map(str.strip, text.split(","))):
            name, _, weight = part.partition("=")
            if name not in OPERATIONS:
                raise BadRequestError(f"the mix names {name!r}; use {', '.join(OPERATIONS)}")
            try:
                given[name] = float(weight)
            except ValueError as error:
                raise BadRequestError(f"the mix has {part!r}; write it as search=60,stream=40") from error
        return cls(**given)

    def weights(self) -> dict[Operation, float]:
        """The weight of each operation."""
        return {"search": self.search, "ask": self.ask, "stream": self.stream, "cancel": self.cancel}


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A request: when it is due, in seconds from the start, and what it is."""

    at_s: float
    operation: Operation
    question: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What became of a request. Times are milliseconds from when it was due; `late_ms` is when it was sent.

    `first_ms` is that of the first piece of an answer, where it was streamed. `code` is an error's, NOT_SENT, or empty.
    """

    operation: Operation
    due_s: float
    late_ms: float
    latency_ms: float
    first_ms: float | None = None
    code: str = ""


def schedule(mix: Mix, questions: Sequence[str], *, rate_per_s: float, seed: int) -> Iterator[Due]:
    """An endless open loop: a Poisson process, operations and questions drawn independently. The same seed, the same loop.

    Raises BadRequestError for a rate that can't be, and for no question.
    """
    if not 0 < rate_per_s < math.inf:
        raise BadRequestError(f"the rate is {rate_per_s:g}; give a number of requests a second above 0")
    if not questions:
        raise BadRequestError("there is no question to ask; give at least one")
    return _draw(mix.weights(), questions, rate_per_s, random.Random(seed))  # noqa: S311 - repeatable, not secret


def _draw(
    weights: Mapping[Operation, float], questions: Sequence[str], rate_per_s: float, rng: random.Random
) -> Iterator[Due]:
    at_s = 0.0
    while True:
        at_s += rng.expovariate(rate_per_s)
        (operation,) = rng.choices(list(weights), list(weights.values()))
        yield Due(at_s=at_s, operation=operation, question=rng.choice(questions))


def perform(client: RagClient, due: Due, *, began_s: float) -> Sample:
    """Send a request that is due and see it to its end. `began_s` is the start of the loop on time.perf_counter's clock."""
    late_ms, first_ms, code = _since_ms(began_s, due), None, ""
    try:
        first_ms = _PERFORM[due.operation](client, due, began_s)
    except RagError as error:
        code = error.code
    return Sample(
        operation=due.operation,
        due_s=due.at_s,
        late_ms=late_ms,
        latency_ms=_since_ms(began_s, due),
        first_ms=first_ms,
        code=code,
    )


def not_sent(due: Due, *, began_s: float) -> Sample:
    """A request for which the client has no room: too many others are still unanswered."""
    passed_ms = _since_ms(began_s, due)
    return Sample(operation=due.operation, due_s=due.at_s, late_ms=passed_ms, latency_ms=passed_ms, code=NOT_SENT)


def _since_ms(began_s: float, due: Due) -> float:
    return 1e3 * (time.perf_counter() - began_s - due.at_s)


def _search(client: RagClient, due: Due, _began_s: float) -> None:
    client.search(due.question)


def _ask(client: RagClient, due: Due, _began_s: float) -> None:
    client.ask(due.question)


def _stream(client: RagClient, due: Due, began_s: float) -> float | None:
    first_ms = None
    with client.stream(due.question) as pieces:
        for piece in pieces:
            if piece.finish_reason == "error":
                raise InternalError(piece.degraded or "the answer broke off")
            if piece.text and first_ms is None:
                first_ms = _since_ms(began_s, due)
    return first_ms


def _cancel(client: RagClient, due: Due, began_s: float) -> float | None:
    with client.stream(due.question) as pieces:
        for piece in pieces:
            if piece.text:
                return _since_ms(began_s, due)
    return None


_PERFORM: Final = {"search": _search, "ask": _ask, "stream": _stream, "cancel": _cancel}


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """A JSON object a line, by the time at which they were due."""
    ordered = sorted(samples, key=lambda sample: sample.due_s)
    path.write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in ordered), encoding="utf-8")


def read_samples(path: Path) -> list[Sample]:
    """What write_samples wrote. Raises InternalError where that is not there, or is something else."""
    try:
        return [Sample(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, TypeError, ValueError) as error:
        raise InternalError(f"the scenario left no samples behind: {error}") from error
