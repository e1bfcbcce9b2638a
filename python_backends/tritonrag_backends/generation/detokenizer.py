"""Token ids to text, as they come: whole characters, and together what decoding all of them at once gives."""

from collections.abc import Callable, Sequence
from typing import Final

_REPLACEMENT: Final = "\ufffd"
# A character has at most 4 bytes, and decoders that fall back to bytes write one replacement for each that waits for the rest.
_MAX_WAITING: Final = 3


class Detokenizer:
    """One answer's ids to text. `decode` gives the text of ids: a tokenizer's own, which may look at neighbours.

    Ids are decoded together with those before them, because decoders treat the first one in their own way (a leading blank goes).
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []  # those before, which are complete, and those that are not all passed on
        self._complete = 0
        self._passed = 0  # characters of the text of `_ids`

    def push(self, ids: Sequence[int]) -> str:
        """What can be passed on now; the beginning of a character waits."""
        self._ids += ids
        text = self._decode(self._ids)
        end = len(text)
        while end > max(len(text) - _MAX_WAITING, 0) and text[end - 1] == _REPLACEMENT:
            end -= 1
        passed = text[self._passed : end]
        self._passed = max(self._passed, end)
        if end == len(text) and text:
            self._forget()
        return passed

    def flush(self) -> str:
        """What waited; for the end of the answer."""
        text = self._decode(self._ids)[self._passed :]
        self._passed += len(text)
        return text

    def _forget(self) -> None:
        """Keep what came since the last time as the neighbours of what comes."""
        self._ids = self._ids[self._complete :]
        self._complete = len(self._ids)
        self._passed = len(self._decode(self._ids))
