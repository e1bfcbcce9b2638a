"""The citations in an answer while it streams: labels of the prompt become numbers of sources, and what cites nothing goes.

`[2]`, `[1, 3]`, `[1; 3]`, `[1-3]` and `[Passage 2]` are citations; they are written as `[a][b]`. Not so what holds a 0 or a number
of more than three digits (a year), and whatever stands in code or is a subscript (`surroundings.py`): it passes unchanged.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from tritonrag_backends.prompting.surroundings import Surroundings

_LONGEST: Final = 40  # characters of a citation, and so of what is held back
_WORDS: Final = ("passage ", "passages ", "source ", "sources ")
_BEGINNING: Final = re.compile(r"(?:(?:passage|source)s? )?[0-9 ,;\u2013-]*+")
_NUMBER: Final = "[1-9][0-9]{0,2}"
_CITATION: Final = re.compile(
    rf"\[ ?(?:(?:passage|source)s? )?(?P<numbers>{_NUMBER}(?: ?[ ,;\u2013-] ?{_NUMBER})*+) ?\]", re.IGNORECASE
)
_RANGE: Final = re.compile(r"([0-9]+)(?: ?[\u2013-] ?([0-9]+))?")


class Citations:
    """One answer's stream. Label i + 1 is source `labels[i]`. However the text is cut into pieces, the same comes of it."""

    def __init__(self, labels: Sequence[int]) -> None:
        self._sources = dict(enumerate(labels, start=1))
        self._before = Surroundings()
        self._space = ""  # held back: it goes with a citation that goes
        self._bracket = ""  # held back: it may become a citation
        self._cited = set[int]()
        self._kept = 0
        self._removed = 0

    @property
    def cited(self) -> frozenset[int]:
        """The sources that were cited so far."""
        return frozenset(self._cited)

    @property
    def kept(self) -> int:
        """How many citations were passed on, `[1][2]` being two."""
        return self._kept

    @property
    def removed(self) -> int:
        """How many numbers were taken out because no passage in the prompt bears them."""
        return self._removed

    def push(self, text: str) -> str:
        """Take the next piece, and give what is certain: all but at most one space and a bracket of 40 characters at the end."""
        return "".join(part for character in text for part in self._take(character))

    def flush(self) -> str:
        """What was held back, at the end of the answer."""
        held, self._space, self._bracket = self._space + self._bracket, "", ""
        return held

    def _take(self, character: str) -> Iterator[str]:
        if self._bracket:
            yield from self._go_on(character)
            return
        self._before.feed(character)
        if character == "[" and not self._before.is_subscript:
            self._bracket = character
            return
        yield self._space
        self._space = character if character == " " else ""
        yield character.removeprefix(" ")

    def _go_on(self, character: str) -> Iterator[str]:
        bracket, self._bracket = self._bracket, ""
        if _may_become_citation(bracket + character):
            self._bracket = bracket + character
        elif match := _CITATION.fullmatch(bracket + character):
            self._before.end_citation()
            yield self._written(match["numbers"])
            self._space = ""
        else:
            for held in bracket[1:]:
                self._before.feed(held)
            yield self._space + bracket
            self._space = ""
            yield from self._take(character)

    def _written(self, numbers: str) -> str:
        """The citation as the client reads it, with the space before it; nothing where it cites nothing."""
        labels = dict.fromkeys(_labels(numbers))
        sources = [self._sources[label] for label in labels if label in self._sources]
        self._cited.update(sources)
        self._kept += len(sources)
        self._removed += len(labels) - len(sources)
        return self._space + "".join(f"[{source}]" for source in sources) if sources else ""


def _may_become_citation(bracket: str) -> bool:
    inner = bracket[1:].removeprefix(" ").lower()
    begun = _BEGINNING.fullmatch(inner) or any(word.startswith(inner) for word in _WORDS)
    return len(bracket) < _LONGEST and bool(begun)


def _labels(numbers: str) -> Iterator[int]:
    for first, last in _RANGE.findall(numbers):
        low, high = int(first), int(last or first)
        yield from range(low, high + 1) if low <= high else (low, high)
