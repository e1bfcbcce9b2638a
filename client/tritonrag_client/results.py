"""What a client gives back. Standard library alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tritonrag_client.contract import Passage, Source

_CITATION = re.compile(r"\[(\d{1,9})\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer. `[n]` in `text` refers to the source with that number.

    `finish_reason` is one of contract.FinishReason; `degraded` is "" or tells what the server gave up and why. "error" is for
    a text that broke off: our servers send it in streams alone, for here they can still replace the whole answer.
    """

    text: str
    sources: tuple[Source, ...]
    finish_reason: str
    degraded: str
    request_id: str

    @property
    def cited(self) -> tuple[Source, ...]:
        """The sources that the text cites, by their number, each once."""
        numbers = {int(number) for number in _CITATION.findall(self.text)}
        return tuple(source for source in self.sources if source.n in numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDelta:
    """The next piece of a streamed answer.

    The first one bears the sources, later ones none. `finish_reason` is "" but for the last. There "error" means that the
    answer broke off after some of it had been passed on: what came is not the whole of it, and `degraded` tells why.
    """

    text: str
    sources: tuple[Source, ...]
    finish_reason: str
    degraded: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPassage:
    """A passage and how well it fits the question.

    `score` is a cosine similarity (mode dense), BM25 (lexical) or a sum of reciprocal ranks (hybrid): scores of one mode can be
    compared within a result, and only cosines from question to question.
    """

    passage_id: int
    score: float
    passage: Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The passages for one question, best first; fewer than asked for where fewer are allowed.

    `degraded` is "" or tells what the index gave up and why: the passages are as good, only slower to find.
    """

    passages: tuple[ScoredPassage, ...]
    index_version: int
    degraded: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the server says of itself. `models` tells for each model of the contract whether it is ready.

    A server that can't be reached is not live. Of several servers it is what at least one of them says.
    """

    live: bool = False
    ready: bool = False
    models: Mapping[str, bool] = field(default_factory=dict)
