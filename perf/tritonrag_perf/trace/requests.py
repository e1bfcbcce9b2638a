"""A trace in memory: who asked when, and of which parts each prompt was made."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

Kind = Literal["system", "passage", "history", "web", "question"]
Key = tuple[str, int]

ORDER: Final[tuple[Kind, ...]] = ("system", "passage", "history", "web", "question")  # of a prompt, as the trace has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a prompt: the same `kind` and `id` are the same tokens."""

    kind: str
    id: int
    tokens: int

    @property
    def key(self) -> Key:
        """What is the same for the same text."""
        return self.kind, self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRequest:
    """One request. `arrival_s` counts from the trace's beginning; `parts` are the prompt in the trace's own order.

    Behind the question stands a part of kind "rest": what the parts leave of the prompt's length, the chat template's tokens.
    """

    arrival_s: float
    session: str
    answer_tokens: int
    parts: tuple[Part, ...]

    def of(self, *kinds: str) -> tuple[Part, ...]:
        """The parts of these kinds, in the trace's order; passages come best first."""
        return tuple(part for part in self.parts if part.kind in kinds)

    @property
    def question(self) -> Part:
        """What was asked: a repeat has the same id."""
        return self.of("question")[0]

    @property
    def prompt_tokens(self) -> int:
        """Of all parts."""
        return sum(part.tokens for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Requests in the order of their arrival. `estimated`: the kinds whose lengths no file gave."""

    requests: tuple[TracedRequest, ...]
    estimated: tuple[str, ...] = ()

    @cached_property
    def passage_uses(self) -> Counter[int]:
        """How many requests used each passage."""
        return Counter(id_ for request in self.requests for id_ in _ids(request.of("passage")))

    @property
    def repeats(self) -> int:
        """Requests whose question was asked before."""
        return len(self.requests) - len({request.question.id for request in self.requests})

    @property
    def prompt_tokens(self) -> int:
        """Of all requests."""
        return sum(request.prompt_tokens for request in self.requests)

    @property
    def answer_tokens(self) -> int:
        """Of all requests."""
        return sum(request.answer_tokens for request in self.requests)


def _ids(parts: Iterable[Part]) -> set[int]:
    return {part.id for part in parts}
