"""HTML: what a reader of the page would read, by a streaming parser that builds no tree."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

# lxml ships no types; what it hands out is annotated where it enters.
from lxml import etree

from tritonrag_export.documents.content import Content, first_heading
from tritonrag_export.documents.flow import LINE, PARAGRAPH, SPACE, Flow
from tritonrag_export.documents.model import Heading
from tritonrag_export.documents.text import clean, decode, one_line, scrub

_HEADINGS: Final = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_SKIPPED: Final = frozenset(
    ("script", "style", "noscript", "template", "nav", "footer", "aside", "svg", "math", "iframe")
)
_SKIPPED_ROLES: Final = frozenset(("navigation", "search", "contentinfo", "banner", "menu"))
_PARAGRAPHS: Final = (
    "p",
    "pre",
    "table",
    "ul",
    "ol",
    "dl",
    "blockquote",
    "figure",
    "section",
    "article",
    "main",
    "header",
    "hr",
)
_LINES: Final = (
    "div",
    "li",
    "tr",
    "dt",
    "dd",
    "br",
    "caption",
    "figcaption",
    "legend",
    "address",
    "summary",
    "option",
    "button",
)
_GAPS: Final = {
    **dict.fromkeys(_LINES, LINE),
    **dict.fromkeys(_PARAGRAPHS, PARAGRAPH),
    **dict.fromkeys(_HEADINGS, PARAGRAPH),
}
# What a link to a heading itself shows: Sphinx has the pilcrow, others have others, and each has its own class for it.
_PERMALINKS: Final = frozenset(("#", "¶", "§", "🔗"))
_CELLS: Final = frozenset(("td", "th"))

# The HTML standard wants the declaration within the first 1024 bytes.
_CHARSET: Final = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)|^<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)""",
    re.IGNORECASE,
)
_CHARSET_BYTES: Final = 1024


def read_html(data: bytes) -> Content:
    """Read an HTML page: without scripts, navigation and the like, and <main> alone where there is one."""
    declared = _CHARSET.search(data[:_CHARSET_BYTES])
    encoding = (declared[1] or declared[2]).decode("ascii", "replace") if declared else None
    page = _Page()
    # Without a tree, deep nesting and long texts cost nothing, so the limits against them can go.
    parser = etree.HTMLParser(target=page, encoding="utf-8", huge_tree=True)
    parser.feed(clean(decode(data, declared=encoding)).encode())
    parser.close()
    return page.content()


class _Page:
    """Takes the parser's events (lxml's target protocol) and writes down what is there to be read."""

    def __init__(self) -> None:
        self._flow = Flow()
        self._title: list[str] = []  # the text of the first <title> outside of what is skipped
        self._in_title = False
        self._headings: list[Heading] = []
        self._heading: list[str] = []  # the text of the open heading
        self._heading_start: int | None = None
        self._main: list[int] = []  # the offsets at which <main> begins and ends
        self._cells = 0  # in the row so far
        self._link_depth = 0
        self._pre_depth = 0
        self._pre_begins = False
        self._skip_depth = 0  # open elements, from a skipped one on

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        if self._skip_depth or tag == "title" or _is_skipped(tag, attributes):
            self._in_title = tag == "title" and not self._skip_depth and not self._title
            self._skip_depth += 1
            return
        self._flow.gap(_GAPS.get(tag, 0))
        if tag in _HEADINGS:
            self._heading_start = self._flow.mark()
        elif tag == "main" and not self._main:
            self._main.append(self._flow.mark())
        elif tag == "li":
            self._flow.label("- ", gap=LINE)
        elif tag == "tr":
            self._cells = 0
        elif tag in _CELLS:
            self._flow.label("| " if self._cells else "", gap=SPACE if self._cells else LINE)
            self._cells += 1
        self._link_depth += tag == "a"
        self._pre_depth += tag == "pre"
        self._pre_begins = tag == "pre"

    def end(self, tag: str) -> None:
        """An element ends."""
        if self._skip_depth:
            self._skip_depth -= 1
            self._in_title = False
            return
        if tag in _HEADINGS:
            self._end_heading(_HEADINGS[tag])
        elif tag == "main" and len(self._main) == 1:
            self._main.append(self._flow.length)
        elif tag in _CELLS:
            self._flow.settle()
        self._link_depth -= tag == "a"
        self._pre_depth -= tag == "pre"
        self._flow.gap(_GAPS.get(tag, 0))

    def data(self, text: str) -> None:
        """Characters between tags."""
        if self._in_title:
            self._title.append(scrub(text))
        if self._skip_depth:
            return
        text = scrub(text)
        if self._heading_start is not None:
            if self._link_depth and text.strip() in _PERMALINKS:
                return
            self._heading.append(text)
        if self._pre_depth:
            self._flow.write(text.removeprefix("\n") if self._pre_begins else text)  # as browsers do
            self._pre_begins = False
        else:
            self._flow.run(text)

    def close(self) -> None:
        """The page ends."""

    def content(self) -> Content:
        """What was read."""
        text, headings = self._flow.text(), self._headings
        start, end = (*self._main, None, None)[:2]
        if start is not None and end is not None and text[start:end].strip():
            text = text[start:end]
            headings = [
                replace(h, start=h.start - start, end=h.end - start) for h in headings if start <= h.start < end
            ]
        title = one_line("".join(self._title)) or first_heading(headings)
        return Content(text=text, title=title, headings=tuple(headings))

    def _end_heading(self, level: int) -> None:
        start, self._heading_start = self._heading_start, None
        title = one_line("".join(self._heading))
        self._heading.clear()
        if start is not None and title:
            self._headings.append(Heading(level=level, title=title, start=start, end=self._flow.length))


def _is_skipped(tag: str, attributes: Mapping[str, str]) -> bool:
    return (
        tag in _SKIPPED
        or "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in _SKIPPED_ROLES
        or "headerlink" in attributes.get("class", "").split()  # the pilcrow that Sphinx puts behind a heading
    )
