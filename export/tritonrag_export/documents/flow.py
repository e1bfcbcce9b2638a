"""Text that is put together from pieces of markup, with the white space that a page would show."""

import re
from typing import Final

NONE: Final = 0
SPACE: Final = 1
LINE: Final = 2
PARAGRAPH: Final = 3
_WHITE: Final = ("", " ", "\n", "\n\n")

_RUN: Final = re.compile(r"[ \t\n\f\xa0]+")


class Flow:
    """Collects text. Gaps are asked for, and written only where text follows; the widest wish wins."""

    def __init__(self) -> None:
        self.length = 0  # characters written so far
        self._parts: list[str] = []
        self._gap = NONE
        self._label: str | None = None  # stands right before the text to come, so gaps wait until it is written

    def gap(self, width: int) -> None:
        """Ask for white space before what comes next."""
        if self._label is None:
            self._gap = max(self._gap, width)

    def label(self, label: str, *, gap: int) -> None:
        """Put `label` (a bullet, a column's bar) right before what comes next, behind this gap at least."""
        self._label, self._gap = label, max(self._gap, gap)

    def settle(self) -> None:
        """Write a label that no text has followed, and forget about white space asked for."""
        if self._label is not None:
            self.write("")
        self._gap = NONE

    def write(self, text: str) -> None:
        """Append text as it stands."""
        if self.length:
            self._append(_WHITE[self._gap])
        self._append(self._label or "")
        self._append(text)
        self._gap, self._label = NONE, None

    def run(self, text: str) -> None:
        """Append running text, in which any white space is one space."""
        words = _RUN.sub(" ", text)
        if words.startswith(" "):
            self.gap(SPACE)
        if words.strip(" "):
            self.write(words.strip(" "))
            self.gap(SPACE if words.endswith(" ") else NONE)

    def mark(self) -> int:
        """The offset at which the next text will stand."""
        self.write("")
        return self.length

    def text(self) -> str:
        """All of it."""
        return "".join(self._parts)

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self.length += len(text)
