"""The documentation that the running Python carries, as documents: a corpus that needs no download."""

import re
from collections.abc import Iterator
from pydoc_data.topics import topics
from types import ModuleType
from typing import Final

from tritonrag_export.documents.finding import OnSkip
from tritonrag_export.documents.model import Document, Heading
from tritonrag_export.documents.pydoc_members import docstring_of, members
from tritonrag_export.documents.pydoc_modules import public_modules
from tritonrag_export.documents.text import one_line, scrub

_UNDERLINED: Final = re.compile(r"^(?P<title>\S.*)\n(?P<line>([*=\-~^\"'.])\3{2,})\n", re.MULTILINE)
_GAP: Final = "\n\n"
_LEVELS: Final = "*=-~^\"'."  # the order in which the topics nest their underlines


def pydoc_documents(on_skip: OnSkip) -> Iterator[Document]:
    """One document for each topic of `help()` and each public module of the standard library, in a fixed order.

    A module's document holds its docstring and, each under a heading of its own, those of its classes, functions and methods behind
    their signatures. `on_skip` is told of each module left out, and why.
    """
    yield from _with_text(_topic_documents())
    yield from _with_text(_module_documents(on_skip))


def _topic_documents() -> Iterator[Document]:
    told: set[str] = set()
    # Short ones first: "The if statement" is a topic of its own, and a part of "Compound statements".
    for topic in sorted(topics, key=lambda topic: (len(topics[topic]), topic)):
        yield topic_document(topic, topics[topic], told)


def _module_documents(on_skip: OnSkip) -> Iterator[Document]:
    told: set[int] = set()
    # All are imported before the first is read: importing curses.has_key takes the place of the function curses.has_key.
    for name, module in list(public_modules(on_skip)):
        yield module_document(name, module, told)


def _with_text(documents: Iterator[Document]) -> Iterator[Document]:
    return (document for document in documents if document.text)


def topic_document(topic: str, source: str, told: set[str]) -> Document:
    """A topic of `help()`: reStructuredText turned to plain text by Sphinx, with underlined headings.

    Sections that are in `told` already are left out; the others are added to it.
    """
    source = scrub(source)
    title, parts, headings, length = "", list[str](), list[Heading](), 0
    for match, body in _topic_sections(source):
        name = one_line(match["title"].replace('"', "")) if match else ""
        title = title or name
        if body.strip() in told:
            continue
        told.add(body.strip())
        if match:
            level = _LEVELS.index(match["line"][0]) + 1
            headings.append(Heading(level=level, title=name, start=length, end=length + len(match[0])))
        parts += [match[0] if match else "", body]
        length += len(parts[-2]) + len(body)
    text = "".join(parts) if any(body.strip() for body in parts[1::2]) else ""
    return Document(uri=f"pydoc:topics/{topic}", title=title or topic, text=text, headings=tuple(headings))


def _topic_sections(source: str) -> Iterator[tuple[re.Match[str] | None, str]]:
    """Heading (None before the first one) and body of each section."""
    matches = list(_UNDERLINED.finditer(source))
    yield None, source[: matches[0].start() if matches else len(source)]
    ends = [match.start() for match in matches[1:]] + [len(source)]
    for match, end in zip(matches, ends, strict=False):
        yield match, source[match.end() : end]


def module_document(name: str, module: ModuleType, told: set[int]) -> Document:
    """A module's documentation. `told` holds the ids of what other modules' documents tell already; it grows.

    The text is empty where nothing is documented.
    """
    docstring = docstring_of(module)
    parts, headings = [docstring] if docstring else [], []
    length = sum(map(len, parts))
    for member in members(name, module, told):
        start = length + len(_GAP) if parts else 0
        # A heading without a line of its own: the signature is to be read in the passage.
        headings.append(Heading(level=member.depth, title=member.name, start=start, end=start))
        if member.docstring:
            parts.append(f"{member.signature}{_GAP}{member.docstring}")
            length = start + len(parts[-1])
    return Document(uri=f"pydoc:{name}", title=name, text=_GAP.join(parts), headings=tuple(headings))
