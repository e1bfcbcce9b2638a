"""The `extractive` engine: no LLM; picks the sentences that answer best and cites them.

A sentence's score is its cosine similarity to the question, plus a share for the question's words that it holds (the rarer
the heavier), less a little for coming late in its passage and for a passage that is ranked low. All but the cosine
is had at no cost and says which sentences are embedded. Where even the best cosine is low, there is no answer.
Deterministic: temperature, top_p and seed change nothing. One token is one whitespace-separated word.
"""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritonrag_backends.generation.candidates import Sentence, coverage, find_sentences, words_of
from tritonrag_backends.generation.engine import Capabilities, Delta, Load, Message, Prompt, Sampling, require_able
from tritonrag_client.contract import FinishReason
from tritonrag_client.errors import RagError

_VERSION = 1  # of the way of choosing: part of the fingerprint, so that a cache forgets what another way chose
NO_ANSWER = "The passages hold no answer to this question."

# A question and n sentences of passages to unit vectors, FP32 [1 + n, dim]: a model may embed the two differently.
Embed = Callable[[str, Sequence[str]], Awaitable[np.ndarray[Any, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractiveOptions:
    """How sentences are chosen. Tuned on perf/questions/pydoc.jsonl; what each is worth stands in docs/benchmarks/extractive.md."""

    max_candidates: int = 6  # sentences that are embedded, a few ms each: 4 answer less, 16 not one question more
    max_sentences: int = 3
    word_weight: float = 0.3  # of the question's words that a sentence holds, beside the cosine's weight of 1
    source_step: float = 0.01  # off for each passage that the retriever ranked higher
    position_step: float = 0.02  # off for each sentence before it in its passage: the first says what it is about
    max_position: int = 3  # behind this one position counts no more
    min_cosine: float = 0.54  # of the best sentence; tuning questions: answerable 0.59 and up, others 0.49 and down
    min_share: float = 0.8  # of the best sentence's score, to stand beside it
    max_likeness: float = 0.85  # cosine similarity to a sentence that was picked already: a repetition


class ExtractiveEngine:
    """Implements `Engine`. `embed` gives unit vectors of the question and of sentences, the question's first."""

    def __init__(self, embed: Embed, options: ExtractiveOptions | None = None) -> None:
        self._embed = embed
        self._options = options or ExtractiveOptions()
        self._running = 0

    @property
    def capabilities(self) -> Capabilities:
        """It reads question and passages, and what it does changes with its options alone."""
        digest = hashlib.sha256(f"{_VERSION} {self._options!r}".encode()).hexdigest()
        return Capabilities(
            engine="extractive",
            model="none",
            fingerprint=digest,
            context_tokens=None,
            reads_messages=False,
            seeds=True,
        )

    @property
    def load(self) -> Load:
        """Nothing waits here: the embedder has the queue."""
        return Load(running=self._running, waiting=0)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Whitespace-separated words, which are this engine's tokens."""
        return sum(len(words_of(message.content)) for message in messages)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """One delta a sentence; the history is not read.

        Raises BadRequestError for a LoRA adapter: there is no model it could adapt.
        """
        require_able(self.capabilities, sampling)
        self._running += 1
        try:
            picked, degraded = await self._pick(prompt)
            pieces = [f"{sentence.text} [{sentence.source}]" for sentence in picked] or [NO_ANSWER]
            for delta in _as_deltas(pieces, sampling, degraded):
                yield delta
        finally:
            self._running -= 1

    async def close(self) -> None:
        """Nothing is held."""

    async def _pick(self, prompt: Prompt) -> tuple[list[Sentence], str]:
        sentences, hints = self._most_promising(prompt)
        if not sentences:
            return [], ""
        try:
            vectors = await self._embed(prompt.question, [sentence.in_context for sentence in sentences])
        except RagError as error:
            overlap = coverage(prompt.question, [sentence.text for sentence in sentences])
            picked = [sentences[int(overlap.argmax())]] if overlap.max() > 0 else []
            return picked, f"sentences were ranked by their words alone, because the embedder failed: {error.code}"
        cosines = vectors[1:] @ vectors[0]
        if cosines.max() < self._options.min_cosine:
            return [], ""
        chosen = self._choose(cosines + hints, vectors[1:])
        best = sentences[chosen[0]].source
        return sorted((sentences[i] for i in chosen), key=lambda s: (s.source != best, s.source, s.start)), ""

    def _most_promising(self, prompt: Prompt) -> tuple[list[Sentence], np.ndarray[Any, Any]]:
        """The sentences worth embedding, in order, and what is in their favour before that: FP32 [n]."""
        options, sentences = self._options, find_sentences(prompt.passages)
        hints = options.word_weight * coverage(prompt.question, [sentence.text for sentence in sentences])
        for row, sentence in enumerate(sentences):
            hints[row] -= options.source_step * (sentence.source - 1)
            hints[row] -= options.position_step * min(sentence.position, options.max_position)
        kept = np.sort(np.argsort(-hints, kind="stable")[: options.max_candidates])
        return [sentences[row] for row in kept.tolist()], hints[kept]

    def _choose(self, scores: np.ndarray[Any, Any], vectors: np.ndarray[Any, Any]) -> list[int]:
        """Rows of the sentences that answer, best first, none like another."""
        options, chosen = self._options, list[int]()
        bar = options.min_share * float(scores.max())
        for row in np.argsort(-scores, kind="stable").tolist():
            if chosen and (scores[row] < bar or len(chosen) == options.max_sentences):
                break
            if not chosen or float((vectors[chosen] @ vectors[row]).max()) <= options.max_likeness:
                chosen.append(row)
        return chosen


def _as_deltas(pieces: Sequence[str], sampling: Sampling, degraded: str) -> list[Delta]:
    """The answer's pieces as deltas, cut at the first stop word and at `max_tokens` words, the last with its finish_reason."""
    texts = [piece if position == 0 else f" {piece}" for position, piece in enumerate(pieces)]
    texts = _before_stop_word(texts, sampling.stop_words)
    texts, finish_reason = _within_budget(texts, sampling.max_tokens)
    last = len(texts) - 1
    return [
        Delta(
            text=text,
            finish_reason=finish_reason if position == last else None,
            degraded=degraded if position == 0 else "",
        )
        for position, text in enumerate(texts)
    ]


def _before_stop_word(texts: list[str], stop_words: Sequence[str]) -> list[str]:
    whole = "".join(texts)
    found = [position for word in stop_words if (position := whole.find(word)) >= 0]
    return texts if not found else _first_characters(texts, min(found))


def _first_characters(texts: list[str], count: int) -> list[str]:
    kept: list[str] = []
    for text in texts:
        kept.append(text[: max(count, 0)])
        count -= len(text)
    return [text for text in kept if text] or [""]


def _within_budget(texts: list[str], max_tokens: int) -> tuple[list[str], FinishReason]:
    """Cut after `max_tokens` words; a sentence that is cut keeps the citation at its end."""
    kept: list[str] = []
    for text in texts:
        words = words_of(text)
        if len(words) > max_tokens:
            if max_tokens > 0:
                kept.append(_shortened(text, words[max_tokens - 1].end()))
            return kept, "length"
        kept.append(text)
        max_tokens -= len(words)
    return kept, "stop"


def _shortened(text: str, end: int) -> str:
    citation = text.rfind(" [")
    return text[:end] if citation < end else text[:end] + text[citation:]
