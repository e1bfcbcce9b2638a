"""Markdown (CommonMark): the text as the author wrote it, headings by the parser's line maps."""

import re
from itertools import pairwise
from typing import Final

from markdown_it import MarkdownIt

from tritonrag_export.documents.content import Content, first_heading, line_starts
from tritonrag_export.documents.model import Heading
from tritonrag_export.documents.text import clean, decode, one_line

# Metadata between two lines of dashes at the very top, as Jekyll introduced it. We take the title alone.
_FRONT_MATTER: Final = re.compile(
    r"---[ \t]*\n(?P<fields>(?:(?!---[ \t]*$|\.\.\.[ \t]*$).*\n)*?)(?:---|\.\.\.)[ \t]*$\n?", re.MULTILINE
)
_TITLE: Final = re.compile(r"""^title[ \t]*:[ \t]*(?P<quote>["']?)(?P<title>.+?)(?P=quote)[ \t]*$""", re.MULTILINE)


def read_markdown(data: bytes) -> Content:
    """Read a Markdown file. The title is the front matter's, else the first heading's."""
    text = clean(decode(data))
    matter = _FRONT_MATTER.match(text)
    skipped = matter.end() if matter else 0
    headings = _headings(text, skipped)
    title = first_heading(headings)
    if matter:
        field = _TITLE.search(matter["fields"])
        title = one_line(field["title"]) if field else title
        # Not for reading, so it goes where headings go: into no passage.
        headings = [Heading(level=1, title=title or "", start=0, end=skipped), *headings]
    return Content(text=text, title=title, headings=tuple(headings))


def _headings(text: str, skipped: int) -> list[Heading]:
    """The headings of the document itself; those inside quotations and lists structure nothing."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])  # inline markup matters in headings alone
    starts = [skipped + start for start in line_starts(text[skipped:])]
    tokens = parser.parse(text[skipped:])
    found = []
    for token, inline in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            first, behind = token.map
            title = one_line(_plain(inline.content))
            found.append(Heading(level=int(token.tag[1:]), title=title, start=starts[first], end=starts[behind]))
    return found


def _plain(markup: str) -> str:
    """A heading without its inline markup."""
    tokens = MarkdownIt("commonmark").parseInline(markup)[0].children or []
    return "".join(
        token.content or " " for token in tokens if token.type in {"text", "code_inline", "softbreak", "image"}
    )
