"""Sentences of the passages that may answer a question, and how many of its words each holds."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritonrag_backends.text.pieces import pieces
from tritonrag_client.contract import Passage

_TOKEN = re.compile(r"\S+")
_TERM = re.compile(r"\w+")
_CITATION = re.compile(r"^\[\d+\]$")
_MIN_TERMS = 3  # "See also:" and a lone signature name answer nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence of passage number `source` (1 for the first), its white space folded. `start` is its offset in the passage."""

    text: str
    source: int
    title: str
    start: int

    @property
    def in_context(self) -> str:
        """The sentence below its passage's title, the way passages are embedded: alone it may not say what it is about."""
        return f"{self.title}\n{self.text}" if self.title else self.text


def find_sentences(question: str, passages: Sequence[Passage], limit: int) -> list[Sentence]:
    """The `limit` sentences most worth a closer look: those that hold most of the question's words, in passage rank among equals.

    A sentence that several passages hold comes once.
    """
    unique: dict[str, Sentence] = {}
    for source, passage in enumerate(passages, start=1):
        for piece in pieces(passage.text, 0, len(passage.text)):
            text = " ".join(passage.text[piece.start : piece.end].split())
            if len(_TERM.findall(text)) >= _MIN_TERMS:
                unique.setdefault(text, Sentence(text=text, source=source, title=passage.title, start=piece.start))
    sentences = list(unique.values())
    if len(sentences) <= limit:
        return sentences
    overlap = coverage(question, [sentence.text for sentence in sentences])
    best = np.argsort(-overlap, kind="stable")[:limit]
    return [sentences[position] for position in sorted(best.tolist())]


def coverage(question: str, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """The share of the question's terms that each text holds, weighted by rarity among the texts: FP32 [n], 0 to 1.

    The weight is the idf of BM25 (Robertson and Zaragoza 2009), which is positive for every term.
    """
    terms = [set(_terms(text)) for text in texts]
    frequency = Counter(term for held in terms for term in held)
    weights = {
        term: math.log(1 + (len(texts) - frequency[term] + 0.5) / (frequency[term] + 0.5))
        for term in set(_terms(question))
    }
    total = sum(weights.values())
    if total == 0:
        return np.zeros(len(texts), np.float32)
    return np.array([sum(weights[term] for term in weights.keys() & held) / total for held in terms], np.float32)


def words_of(text: str) -> list[re.Match[str]]:
    """The whitespace-separated words of an answer, citations left out."""
    return [match for match in _TOKEN.finditer(text) if not _CITATION.match(match.group())]


def _terms(text: str) -> list[str]:
    return [term.casefold() for term in _TERM.findall(text)]
