"""The pieces that passages and answers are made of: sentences, list items, lines of code and of tables.

It looks at the text alone, so it serves every format alike. A mistake is mild: it only moves the points at which a
passage may begin and end.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from tritonrag_backends.text.sentences import sentence_spans, strip_span

_FENCE: Final = re.compile(r"`{3,}|~{3,}")
# A bullet, a number, a field (:param x:), a doctest prompt, a directive: a new piece begins, and deeper lines belong to it.
_ITEM: Final = re.compile(r"[-*+\u2022\u2023\u2013] |\(?(?:\d{1,3}|[A-Za-z])[.)] |[:@][\w ]{1,60}[: ]|>>> |\.\. ")
# A table's row or an underline: such a line is a piece of its own.
_ROW: Final = re.compile(r"\|.*\||\.\.\. ?|[-=~^+*#_]{3,}$|[^\t\n]*\t|.{1,200}?\S {3,}\S")


class Piece(NamedTuple):
    """What a passage takes whole or not at all: `text[start:end]`, not blank. `block` counts the paragraphs it is from."""

    start: int
    end: int
    block: int


class _Line(NamedTuple):
    start: int
    end: int
    body: str  # without white space around it
    indent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    start: int
    end: int
    block: int
    indent: int
    is_item: bool
    is_prose: bool

    def continues(self, line: _Line) -> bool:
        """Whether the paragraph or list item goes on in this line."""
        if not line.body or _ITEM.match(line.body):
            return False
        return line.indent > self.indent if self.is_item else line.indent == self.indent


def pieces(text: str, start: int, end: int) -> Iterator[Piece]:
    """The pieces of `text[start:end]` in order; together they are all of it but white space."""
    for group in _line_groups(text, start, end):
        spans = sentence_spans if group.is_prose else strip_span
        for span in spans(text, group.start, group.end):
            yield Piece(*span, group.block)


def _line_groups(text: str, start: int, end: int) -> Iterator[_Group]:
    """The runs of lines that read on, and the single lines of code and tables."""
    block, fence, group = 0, "", None
    for line in _lines(text, start, end):
        fence_mark = _FENCE.match(line.body)
        alone = bool(fence or fence_mark or _ROW.match(line.body))
        if group and not alone and group.continues(line):
            group = replace(group, end=line.end)
            continue
        if group:
            yield group
        group = None
        if not line.body:
            block += 1
        elif alone:
            yield _Group(start=line.start, end=line.end, block=block, indent=line.indent, is_item=False, is_prose=False)
        else:
            is_item = bool(_ITEM.match(line.body))
            group = _Group(
                start=line.start, end=line.end, block=block, indent=line.indent, is_item=is_item, is_prose=True
            )
        fence = _fence_after(fence, fence_mark[0] if fence_mark else "")
    if group:
        yield group


def _fence_after(fence: str, mark: str) -> str:
    """The fence that is open ("" for none) behind a line that begins with `mark`."""
    if not fence:
        return mark
    return "" if mark.startswith(fence) else fence


def _lines(text: str, start: int, end: int) -> Iterator[_Line]:
    while start < end:
        newline = text.find("\n", start, end)
        behind = end if newline < 0 else newline
        line = text[start:behind]
        yield _Line(start, behind, line.strip(), len(line) - len(line.lstrip()))
        start = behind + 1
