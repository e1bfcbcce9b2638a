"""The sections of a document: the text from one heading to the next, with the path of headings above it."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tritonrag_export.documents.model import Document
from tritonrag_export.documents.text import one_line

_TITLE_SEPARATOR: Final = re.compile(r"\s+[|\u2013\u2014\u00b7\u2022\u00bb-]\s+")
_PATH_SEPARATOR: Final = " › "  # noqa: RUF001  # the usual sign for a path of headings


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The text from one heading to the next. `title` is the document's and those of the headings above it."""

    start: int
    end: int
    title: str


def sections(document: Document) -> Iterator[Section]:
    """The sections of a document in order; together they are all of its text but the headings."""
    path: list[tuple[int, str]] = []
    start, title = 0, _path_title(document.title, path)
    for heading in document.headings:
        if start < heading.start:
            yield Section(start=start, end=heading.start, title=title)
        path = [(level, name) for level, name in path if level < heading.level]
        path.append((heading.level, heading.title))
        start, title = heading.end, _path_title(document.title, path)
    if start < len(document.text):
        yield Section(start=start, end=len(document.text), title=title)


def page_of(document: Document, offset: int) -> int | None:
    """The page, from 1, on which this offset lies; None where the format has no pages."""
    return bisect_right(document.page_starts, offset) or None


def _path_title(document_title: str, path: list[tuple[int, str]]) -> str:
    """The document's title and the headings, without saying the same twice in a row.

    A page's title is often "Page | Site", and its first headings are those two names again.
    """
    title = one_line(document_title)
    names = [title] if title else []
    said = {part.casefold() for part in _TITLE_SEPARATOR.split(title)}
    for name in (one_line(heading) for _, heading in path):
        if name.casefold() not in said and name not in {"", *names[-1:]}:
            names.append(name)
    return _PATH_SEPARATOR.join(names)
