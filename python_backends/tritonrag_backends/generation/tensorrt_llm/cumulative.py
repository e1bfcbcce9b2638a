"""Deltas from a text that comes whole each time, as the library streams it."""

from collections.abc import Sequence

from tritonrag_backends.generation.stop_words import StopWords

_HALF = "\ufffd"  # what a decoder puts where the bytes of a character are not complete yet


class CumulativeText:
    """What is new in each longer text, up to the first stop word. Never half a character, never anything twice."""

    def __init__(self, stop_words: Sequence[str]) -> None:
        self._words = StopWords(stop_words)
        self._seen = 0  # characters that went into `_words`

    @property
    def stopped(self) -> bool:
        """Whether a stop word has come; there is nothing more to say."""
        return self._words.found is not None

    def push(self, text: str) -> str:
        """What can be passed on now that the text is `text`."""
        whole = text.rstrip(_HALF)
        new, self._seen = whole[self._seen :], max(self._seen, len(whole))
        return self._words.push(new)

    def finish(self, text: str) -> str:
        """The rest, `text` being the last; a character that was cut in half is left out."""
        return self.push(text) + self._words.flush()
