"""Texts for a trace that has none: questions as long as the trace's, of words of the index that is asked.

The trace's passages are mapped to passages of the index by their rank in popularity, so that what was asked for often in the trace
is asked for often here. A question's words are those of the passages that its request used, the best one's first. The same question
is the same text whenever it is asked; different ones are different texts, as far as there are words for it. The same trace, index
and seed give the same texts.
"""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.trace.requests import Trace, TracedRequest

CountTokens = Callable[[Sequence[str]], Sequence[int]]

_WORD: Final = re.compile(r"[a-z]{3,}")
_TRIES: Final = 8  # of the aimed passages' words before all words are drawn from


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The text of each question by its id, and which passages of the index it is about.

    `unequal` texts have another number of tokens than the trace's question, `alike` the text of another question.
    """

    by_question: dict[int, str]
    aims: dict[int, tuple[Passage, ...]]
    unequal: int
    alike: int


class PassageMap:
    """Maps passages of a trace to passages of an index, which are dealt in an order of their own, not that of the documents."""

    def __init__(self, trace: Trace, passages: Sequence[Passage], *, seed: int) -> None:
        if not passages:
            raise BadRequestError("the index holds no passage to ask about; build one with documents")
        dealt = list(passages)
        _rng(seed, "passages").shuffle(dealt)
        ranked = sorted(trace.passage_uses, key=lambda id_: (-trace.passage_uses[id_], id_))
        self._of = {id_: dealt[rank % len(dealt)] for rank, id_ in enumerate(ranked)}
        self.shared = max(len(ranked) - len(dealt), 0)  # passages of the trace that have to share one of the index

    def of(self, request: TracedRequest) -> tuple[Passage, ...]:
        """The passages of the index for those that the request used, best first, each once."""
        found = {part.id: self._of[part.id] for part in request.of("passage")}
        return tuple(found.values())


class TextMaker:
    """Makes questions of words that are one token each."""

    def __init__(self, passages: Iterable[Passage], count_tokens: CountTokens, *, seed: int) -> None:
        self._count, self._seed = count_tokens, seed
        words = sorted({word for passage in passages for word in _words(passage)})
        counts = count_tokens(words) if words else ()
        self._single = [word for word, tokens in zip(words, counts, strict=True) if tokens == 1]
        if not self._single:
            raise BadRequestError("no word of the index's passages is a single token; give another index or embedder")
        self._known = frozenset(self._single)

    def make(self, requests: Iterable[TracedRequest], mapped: PassageMap) -> Texts:
        """The texts of the requests' questions, each made for the first one that asks it."""
        texts: dict[int, str] = {}
        aims: dict[int, tuple[Passage, ...]] = {}
        taken: set[str] = set()
        wanted: list[int] = []
        for request in requests:
            question = request.question
            if question.id in texts:
                continue
            aims[question.id] = mapped.of(request)
            texts[question.id] = self._text(question.id, question.tokens, aims[question.id], taken)
            taken.add(texts[question.id])
            wanted.append(question.tokens)
        counted = self._count(list(texts.values()))
        return Texts(
            by_question=texts,
            aims=aims,
            unequal=sum(tokens != length for tokens, length in zip(counted, wanted, strict=True)),
            alike=len(texts) - len(taken),
        )

    def _text(self, id_: int, tokens: int, aim: Sequence[Passage], taken: set[str]) -> str:
        rng = _rng(self._seed, id_)
        text = ""
        for attempt in range(2 * _TRIES):
            text = " ".join(self._drawn(rng, tokens, aim if attempt < _TRIES else ()))
            if text not in taken:
                break
        return text

    def _drawn(self, rng: random.Random, tokens: int, aim: Sequence[Passage]) -> list[str]:
        """So many words: of the first passage, then of the next, then any."""
        words: list[str] = []
        for passage in aim:
            own = [word for word in sorted(set(_words(passage)) & self._known) if word not in words]
            words += rng.sample(own, min(len(own), tokens - len(words)))
        return words + rng.choices(self._single, k=tokens - len(words))


def _words(passage: Passage) -> list[str]:
    return _WORD.findall(f"{passage.title} {passage.text}".lower())


def _rng(seed: int, what: object) -> random.Random:
    return random.Random(f"{seed}:{what}")  # noqa: S311 - repeatable, not secret
