"""Markdown (CommonMark): the text as the author wrote it, headings by the parser's line maps, metadata from front matter."""

from itertools import pairwise

from markdown_it import MarkdownIt

from tritonrag_export.documents.content import Content, first_heading, line_starts
from tritonrag_export.documents.front_matter import read_front_matter
from tritonrag_export.documents.model import Heading
from tritonrag_export.documents.text import clean, decode, one_line


def read_markdown(data: bytes) -> Content:
    """Read a Markdown file. The title is the front matter's, else the first heading's. The text begins behind the front matter.

    Raises ContentError, also for front matter that can't be taken.
    """
    whole = clean(decode(data))
    matter = read_front_matter(whole)
    text = whole[matter.end :]
    headings = _headings(text)
    return Content(
        text=text,
        title=matter.title or first_heading(headings),
        headings=tuple(headings),
        metadata=matter.metadata,
    )


def _headings(text: str) -> list[Heading]:
    """The headings of the document itself; those inside quotations and lists structure nothing."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])  # inline markup matters in headings alone
    starts = line_starts(text)
    found = []
    for token, inline in pairwise(parser.parse(text)):
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
