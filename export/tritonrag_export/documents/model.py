"""What a reader gives and a chunker takes: a document as one text with marked headings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A heading inside a document. `start` and `end` are character offsets into the document's text; level 1 is the top."""

    level: int
    title: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document as plain text. Passages cite it by character offsets into `text`."""

    uri: str
    title: str
    text: str
    headings: tuple[Heading, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
