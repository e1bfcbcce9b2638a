"""What a reader gives and a chunker takes, a document as one text with marked headings, and what becomes of it: its passages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonrag_client.contract import Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A heading inside a document; level 1 is the top.

    `start` and `end` are character offsets into the document's text. That span (the heading's lines) is part of no
    passage: it reaches them through their titles. Where start equals end, a section begins that has no heading line.
    """

    level: int
    title: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document as plain text. Passages cite it by character offsets into `text`.

    Lines end in a single newline character and there are no other control characters but tabs.
    `headings` are in order and don't overlap. `page_starts` holds the offset of each page, for formats that have pages.
    `metadata` is what JSON can hold (`documents/metadata.py`). `tenant` is whose document it is; None: everybody's.
    """

    uri: str
    title: str
    text: str
    headings: tuple[Heading, ...] = ()
    page_starts: tuple[int, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tenant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPassages:
    """The passages of one document: what an index adds, replaces and deletes as a whole.

    `id` is unique within its tenant: for a file its uri, for a line of JSONL its id. `tenant` is the only one who may see
    the passages; None: everybody. It is never sent, so passages don't hold it.
    """

    id: str
    tenant: str | None
    passages: tuple[Passage, ...]
