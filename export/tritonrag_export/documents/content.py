"""What the reader of one format gives: a document that does not know its name yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tritonrag_export.documents.model import Heading


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The readable part of a file. `title` is None where the file does not tell its own."""

    text: str
    title: str | None = None
    headings: tuple[Heading, ...] = ()
    page_starts: tuple[int, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


# Takes the file's bytes; raises ContentError.
Reader = Callable[[bytes], Content]


def first_heading(headings: Sequence[Heading]) -> str | None:
    """The title of a document that has no other: that of its first heading."""
    return next((heading.title for heading in headings if heading.title), None)


def line_starts(text: str) -> list[int]:
    """The offset of each line, and one more: that behind the last one. `line_starts(t)[n]` is where line n (from 0) begins."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    starts[-1] -= 1  # the last line ends without a newline
    return starts
