"""Sentences of the passages that may answer a question, and how many of its words each holds.

Nothing here knows a language: prose is told from code by its characters, rare words from common ones by counting.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tritonrag_backends.text.pieces import pieces
from tritonrag_client.contract import Passage

_TOKEN: Final = re.compile(r"\S+")
# Identifiers fall apart at underscores; Chinese and Japanese, written without spaces, into single characters.
_TERM: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")
_CITATION: Final = re.compile(r"\[\d+\]")
_MIN_TERMS: Final = 3  # "See also:" and a lone name answer nothing

_ENDS: Final = re.compile(r"[.!?…\u3002\uff01\uff1f\uff61][\"')\]*`\u201d\u2019\u00bb\u300d\u300f\uff09]*\Z")
_LEADS_IN: Final = (":", "\uff1a")  # its sense is in what follows
_MARKED_UP: Final = re.compile(r">>>|\.\.\. |[:@]\w|[|+=~-]{2}|\|")  # a doctest, a field, a table, a rule
# Letters, with punctuation around them and no sign of code within; possessive, so linear on any token.
_WORD: Final = re.compile(r"[^\w\s]*+[^\W\d_][^\d_=(){}\[\]<>|\\@#$%&+~*.]*+[^\w\s(=]*+")
# The share of a piece's tokens that are words. With a full stop less will do: prose about code quotes code.
_MIN_WORDS_ENDED: Final = 0.6
_MIN_WORDS: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence of passage number `source` (1 for the first), its white space folded.

    `start` is its offset in the passage, `position` the number of candidates before it there.
    """

    text: str
    source: int
    title: str
    start: int
    position: int

    @property
    def in_context(self) -> str:
        """The sentence below its passage's title, the way passages are embedded: alone it may not say what it is about."""
        return f"{self.title}\n{self.text}" if self.title else self.text


def find_sentences(passages: Sequence[Passage]) -> list[Sentence]:
    """The passages' sentences in order, each text once; where there is no prose at all, their other pieces.

    What holds `[1]` is left out: in an answer it would read as a citation.
    """
    for wanted in (_is_prose, _says_something):
        unique: dict[str, Sentence] = {}
        for source, passage in enumerate(passages, start=1):
            found = ((start, text) for start, text in _folded_pieces(passage.text) if wanted(text))
            for position, (start, text) in enumerate(found):
                sentence = Sentence(text=text, source=source, title=passage.title, start=start, position=position)
                unique.setdefault(text, sentence)
        if unique:
            return list(unique.values())
    return []


def coverage(question: str, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """The share of the question's terms that each text holds, weighted by rarity among the texts: FP32 [n], 0 to 1.

    The weight is the idf of BM25 (Robertson and Zaragoza 2009), which is positive for every term.
    """
    terms = [set(_terms(text)) for text in texts]
    frequency = Counter(term for held in terms for term in held)
    weights = {
        term: math.log(1 + (len(texts) - frequency[term] + 0.5) / (frequency[term] + 0.5))
        for term in dict.fromkeys(_terms(question))
    }
    total = sum(weights.values())
    if total == 0:
        return np.zeros(len(texts), np.float32)
    return np.array([sum(weights[term] for term in weights if term in held) / total for held in terms], np.float32)


def words_of(text: str) -> list[re.Match[str]]:
    """The whitespace-separated words of an answer, citations left out."""
    return [match for match in _TOKEN.finditer(text) if not _CITATION.fullmatch(match.group())]


def _folded_pieces(text: str) -> Iterator[tuple[int, str]]:
    for piece in pieces(text, 0, len(text)):
        yield piece.start, " ".join(text[piece.start : piece.end].split())


def _says_something(text: str) -> bool:
    return len(_TERM.findall(text)) >= _MIN_TERMS and not _CITATION.search(text)


def _is_prose(text: str) -> bool:
    if _MARKED_UP.match(text) or text.endswith(_LEADS_IN) or not _says_something(text):
        return False
    tokens = text.split()
    words = sum(1 for token in tokens if _WORD.fullmatch(token))
    return words >= (_MIN_WORDS_ENDED if _ENDS.search(text) else _MIN_WORDS) * len(tokens)


def _terms(text: str) -> list[str]:
    return [_singular(term.casefold()) for term in _TERM.findall(text)]


def _singular(term: str) -> str:
    """Without a plural's s. Where it is none, in other languages too, both sides lose it alike."""
    return term[:-1] if len(term) > _MIN_TERMS and term.endswith("s") and not term.endswith("ss") else term
