"""Cutting a stream of text at the first stop word, wherever the pieces fall."""

from collections.abc import Sequence


class StopWords:
    """Lets text through up to the first stop word; holds back what may be the beginning of one.

    Of stop words that begin at the same place the first to be complete counts. Once `found`, nothing comes through.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(word for word in words if word)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """What of the text so far can be passed on now."""
        if self.found is not None:
            return ""
        self._held += text
        hits = [(at, word) for word in self._words if (at := self._held.find(word)) >= 0]
        if hits:
            at, self.found = min(hits, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))
            passed, self._held = self._held[:at], ""
            return passed
        keep = self._longest_beginning()
        passed, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return passed

    def flush(self) -> str:
        """What was held back; for the end of the stream."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self) -> int:
        """Characters at the end of what is held that may be the beginning of a stop word."""
        longest = min(max(map(len, self._words), default=1) - 1, len(self._held))
        for length in range(longest, 0, -1):
            end = self._held[-length:]
            if any(word.startswith(end) for word in self._words):
                return length
        return 0
