"""Text to terms, for passages and questions alike: what lexical search compares.

A word is a run of letters, digits, marks and underscores, its case folded, normalised (NFKC) and stemmed. Stop words are left out.
`max_wal_size` and `ThreadPool` are terms as a whole, and so are their parts. Scripts that put no spaces between words become pairs
of characters. "C++" and "C#" are terms beside "C".
"""

import re
import threading
import unicodedata
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import Final

import Stemmer

from tritonrag_client.errors import BadRequestError

# Raise it whenever the same text could give other terms: an index and the questions to it must agree.
ANALYZER_VERSION: Final = 1
NO_LANGUAGE: Final = "none"
MOST_TERM_BYTES: Final = 64

# Letters of most scripts are \\w to `re`, vowel signs and accents that stand by themselves are not.
_MARK_BLOCKS: Final = (
    range(0x300, 0x370),
    range(0x483, 0x488),
    range(0x591, 0x1200),
    range(0x1700, 0x1E00),
    range(0xA600, 0xAC00),
)
_MARKS: Final = "".join(
    chr(code) for block in _MARK_BLOCKS for code in block if unicodedata.category(chr(code)) in {"Mn", "Mc"}
)
_LETTER: Final = rf"[\w{_MARKS}]"
# First what can't be parted by white space or punctuation, which is fast and remembered; then, where it is new, the words in it.
_CHUNK: Final = re.compile(rf"[\w{_MARKS}'\u2019+#]+")
_WORD: Final = re.compile(rf"{_LETTER}+(?:['\u2019]{_LETTER}+)*(?:\+\+|#(?!\w))?")
# Chinese, Japanese, Korean; Thai and Lao, Burmese, Khmer.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
)
_UNSPACED_RUN: Final = re.compile(rf"[{_UNSPACED}\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+")
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])")
_APOSTROPHE: Final = re.compile(r"['\u2019]")
# Soft hyphens and joiners, which show nothing and part no words.
_INVISIBLE: Final = dict.fromkeys(map(ord, "\u00ad\u200c\u200d\u2060\ufeff"))

# What follows the apostrophe in "it's", "don't", "we'll" is left out there. By itself it may name a thing ("re", "S"), as may what
# stands before one in "ma'am", "o'clock" and "y'all": these are no stop words.
_CONTRACTED: Final = frozenset({"d", "ll", "m", "re", "s", "t", "ve"})
_FRAGMENTS: Final = _CONTRACTED | {"ma", "o", "y"}
_MOST_KNOWN: Final = 65_536  # chunks whose terms are remembered: some 15 MB
_LONGEST_KNOWN: Final = 32


class Analyzer:
    """Terms of texts in one language: a Snowball stemmer's name, or "none" (no stemming, no stop words). Safe for many threads.

    Raises BadRequestError for a language that there is not.
    """

    def __init__(self, language: str) -> None:
        if language not in languages():
            raise BadRequestError(f"language is {language!r}; use one of {', '.join(languages())}")
        self.language: Final = language
        self._stop_words = _stop_words(language)
        self._contracted = _CONTRACTED if language in {"english", "porter"} else frozenset()
        self._stem = _stemmer(language)
        self._known = _Known(self._terms_of)

    @property
    def name(self) -> str:
        """Language and version: texts analysed under the same name have the same terms."""
        return f"{self.language}/{ANALYZER_VERSION}"

    def terms(self, text: str) -> list[str]:
        """The terms of a text in order, each as often as it occurs; at most 64 UTF-8 bytes each."""
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
        return list(chain.from_iterable(map(self._known.__getitem__, _CHUNK.findall(text))))

    def _terms_of(self, chunk: str) -> tuple[str, ...]:
        if chunk.isascii() and chunk.isalnum() and not _HUMP.search(chunk):  # most are
            return tuple(map(_cut, self._stemmed(chunk)))
        return tuple(_cut(term) for word in _WORD.findall(chunk) for term in self._terms_of_word(word))

    def _terms_of_word(self, word: str) -> Iterator[str]:
        bare = word.rstrip("+#")
        if bare != word:
            yield _fold(word)
        first, *rest = _APOSTROPHE.split(bare)
        for piece in (first, *(piece for piece in rest if piece.casefold() not in self._contracted)):
            yield from self._terms_of_piece(piece)

    def _terms_of_piece(self, piece: str) -> Iterator[str]:
        """A word without apostrophes: whole, then in parts."""
        if not piece.isascii() and _UNSPACED_RUN.search(piece):
            yield from self._terms_of_unspaced(piece)
            return
        parts = [part for part in piece.split("_") if part]
        if len(parts) > 1 or (parts and piece != parts[0]):
            yield _fold(piece)  # an identifier, as it is written
        for part in parts:
            yield from self._stemmed(part)
            humps = _HUMP.split(part) if len(part) <= MOST_TERM_BYTES else []
            if len(humps) > 1:
                for hump in humps:
                    if len(hump) > 1:
                        yield from self._stemmed(hump)

    def _terms_of_unspaced(self, piece: str) -> Iterator[str]:
        end = 0
        for run in _UNSPACED_RUN.finditer(piece):
            yield from self._terms_of_piece(piece[end : run.start()])
            characters, end = run.group(), run.end()
            yield from map("".join, pairwise(characters)) if len(characters) > 1 else (characters,)
        yield from self._terms_of_piece(piece[end:])

    def _stemmed(self, word: str) -> Iterator[str]:
        folded = _fold(word)
        if folded not in self._stop_words:
            yield self._stem(folded[:MOST_TERM_BYTES]) or folded


def languages() -> tuple[str, ...]:
    """What `Analyzer` takes."""
    return (*Stemmer.algorithms(), NO_LANGUAGE)


class _Known(dict[str, tuple[str, ...]]):
    """The terms of chunks that were met before, so that one costs a look-up."""

    def __init__(self, make: Callable[[str], tuple[str, ...]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, chunk: str) -> tuple[str, ...]:
        terms = self._make(chunk)
        if len(chunk) <= _LONGEST_KNOWN:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[chunk] = terms
        return terms


def _fold(word: str) -> str:
    return word.lower() if word.isascii() else unicodedata.normalize("NFKC", word.casefold())


def _cut(term: str) -> str:
    data = term.encode()
    return term if len(data) <= MOST_TERM_BYTES else data[:MOST_TERM_BYTES].decode(errors="ignore")


def _stemmer(language: str) -> Callable[[str], str]:
    if language == NO_LANGUAGE:
        return str
    stem, lock = Stemmer.Stemmer(language, 0).stemWord, threading.Lock()

    def stem_alone(word: str) -> str:
        with lock:  # a stemmer has state
            return str(stem(word))

    return stem_alone


def _stop_words(language: str) -> frozenset[str]:
    """The library's stop words, where it has some for the language."""
    if language == NO_LANGUAGE:
        return frozenset()
    from bm25s import stopwords  # noqa: PLC0415 - takes 0.08 s, and not all need it

    if language in {"english", "porter"}:
        return frozenset(stopwords.STOPWORDS_EN_PLUS) - _FRAGMENTS
    name = f"STOPWORDS_{language.removesuffix('_porter').upper()}"
    return frozenset(map(_fold, getattr(stopwords, name, ())))
