"""reStructuredText: the text as the author wrote it, headings by docutils' line numbers."""

import io
import logging
import re
from collections.abc import Iterator
from typing import Any, Final

from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.parsers.rst import Parser
from docutils.parsers.rst.states import Inliner
from docutils.utils import new_document

from tritonrag_export.documents.content import Content, first_heading, line_starts
from tritonrag_export.documents.model import Heading
from tritonrag_export.documents.text import clean, decode, one_line

_LOG = logging.getLogger(__name__)

_LONGEST_TITLE: Final = 1000
_ROLE: Final = re.compile(r":[\w:.+-]+:(?=`)")
_LINK_TARGET: Final = re.compile(r"\s*<[^<>]*>`")
_MARKS: Final = re.compile(r"``|\*\*|[*`]_{0,2}")


class _NoInline(Inliner):
    """Leaves inline markup unparsed: nine tenths of docutils' time, and only titles need it."""

    def init_customizations(self, settings: object) -> None:
        """Called by docutils before it parses."""

    def parse(
        self, text: str, lineno: int, memo: object, parent: object
    ) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The paragraph as it stands, and no complaints."""
        del lineno, memo, parent
        return [nodes.Text(text)], []

    def adjust_uri(self, uri: str) -> str:
        """A hyperlink target as it stands; docutils' own looks for e-mail addresses with the patterns that are left out here."""
        return uri


def read_rst(data: bytes) -> Content:
    """Read a reStructuredText file, with or without Sphinx directives. The title is the first heading's."""
    text = clean(decode(data))
    lines, starts = text.split("\n"), line_starts(text)
    headings, done = list[Heading](), 0
    for level, title, underline in _titles(lines):
        if underline < 1 or lines[underline - 1].strip() != title.strip():
            continue  # docutils counted otherwise; a heading in the wrong place is worse than none
        # The line above may be the underline of the heading before.
        overlined = underline - 2 >= done and lines[underline - 2].strip() == lines[underline].strip()
        first, done = underline - (2 if overlined else 1), underline + 1
        headings.append(Heading(level=level, title=_plain(title), start=starts[first], end=starts[done]))
    return Content(text=text, title=first_heading(headings), headings=tuple(headings))


def _titles(lines: list[str]) -> Iterator[tuple[int, str, int]]:
    """Level, title and number (from 0) of the underline, for each section."""
    # docutils gives up on a file with a long line; what lies behind a title's length is of no use here.
    tree = _parse("\n".join(line[:_LONGEST_TITLE] for line in lines))
    for section in tree.findall(nodes.section):
        title = section.next_node(nodes.title)
        if title is not None and title.line:
            level, parent = 1, section.parent
            while parent is not None and parent.parent is not None:
                level, parent = level + 1, parent.parent
            yield level, title.rawsource, title.line - 1


def _parse(text: str) -> nodes.document:
    settings: Any = get_default_settings(Parser)
    settings.report_level = settings.halt_level = 5  # faults in the markup are the author's business
    settings.warning_stream = io.StringIO()
    settings.file_insertion_enabled = settings.raw_enabled = False  # `.. include:: /etc/passwd`
    tree = new_document("document", settings)
    try:
        Parser(inliner=_NoInline()).parse(text, tree)
    except RecursionError:
        _LOG.warning("nested too deeply for docutils; read without its headings")
        return new_document("document", settings)
    return tree


def _plain(title: str) -> str:
    """A heading without its inline markup."""
    return one_line(_MARKS.sub("", _ROLE.sub("", _LINK_TARGET.sub("`", title))))
