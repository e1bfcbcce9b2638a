"""Word documents (docx): paragraphs, headings by style, tables row by row."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final

import docx
from docx.opc.exceptions import OpcError
from docx.table import Table, _Cell, _Row
from docx.text.paragraph import Paragraph
from lxml import etree

from tritonrag_export.documents.content import Content, first_heading
from tritonrag_export.documents.errors import ContentError
from tritonrag_export.documents.flow import LINE, PARAGRAPH, Flow
from tritonrag_export.documents.model import Heading
from tritonrag_export.documents.text import one_line, scrub

_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # the container of old .doc files, and of encrypted new ones
_MAX_UNPACKED_BYTES: Final = 1 << 30  # a zip of 1 MB can unpack to 1 GB of XML
_MAX_CELL: Final = 10_000  # characters of a table's cell, which is one line here
_MAX_STYLES: Final = 20  # a damaged file can base styles on each other in a circle
_HEADING_STYLE: Final = re.compile(r"heading ([1-9])")
# What damaged zips and damaged XML raise inside python-docx, which checks little (found by mutating files).
_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError,
    OpcError, etree.LxmlError,
)  # fmt: skip


def read_docx(data: bytes) -> Content:
    """Read a Word document's body. The title is the core properties', else that of the first heading."""
    if data.startswith(_OLE):
        raise ContentError("is encrypted, or an old .doc file by another name; save it as .docx without a password")
    try:
        return _read(data)
    except _DAMAGE as error:
        raise ContentError("is not a Word document, or a damaged one; open it in Word and save it anew") from error


def _read(data: bytes) -> Content:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _MAX_UNPACKED_BYTES:
        raise ContentError(f"unpacks to {unpacked} bytes, over the limit of {_MAX_UNPACKED_BYTES}; split it")
    document = docx.Document(io.BytesIO(data))
    flow, headings = Flow(), list[Heading]()
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            flow.gap(PARAGRAPH)
            _write_table(flow, item)
            flow.gap(PARAGRAPH)
        else:
            _write_paragraph(flow, item, headings)
    title = one_line(scrub(document.core_properties.title))
    return Content(text=flow.text(), title=title or first_heading(headings), headings=tuple(headings))


def _write_paragraph(flow: Flow, paragraph: Paragraph, headings: list[Heading]) -> None:
    text = scrub(paragraph.text)
    if not text.strip():
        return
    style = _style_names(paragraph)
    level = _heading_level(style)
    is_item = any(name.startswith("list ") for name in style)
    if is_item:
        flow.label("- ", gap=LINE)
    else:
        flow.gap(PARAGRAPH)
    start = flow.mark() if level else 0
    flow.write(text)
    flow.gap(LINE if is_item else PARAGRAPH)
    if level:
        headings.append(Heading(level=level, title=one_line(text), start=start, end=flow.length))


def _write_table(flow: Flow, table: Table) -> None:
    for row in table.rows:
        flow.gap(LINE)
        flow.write(" | ".join(_row_texts(row)))


def _row_texts(row: _Row) -> Iterator[str]:
    """The text of each cell; one that spans columns comes once."""
    previous = None
    for cell in row.cells:
        element = cell._tc  # noqa: SLF001  # python-docx tells in no other way that two cells are one
        if element is not previous:
            yield one_line(scrub(_cell_text(cell)), limit=_MAX_CELL)
        previous = element


def _cell_text(cell: _Cell) -> str:
    parts = list[str]()
    for item in cell.iter_inner_content():
        if isinstance(item, Table):
            parts.extend(text for row in item.rows for text in _row_texts(row))
        else:
            parts.append(item.text)
    return " ".join(parts)


def _style_names(paragraph: Paragraph) -> list[str]:
    """The name of the paragraph's style and of those it is based on, in lower case."""
    names, style = list[str](), paragraph.style
    while style is not None and len(names) < _MAX_STYLES:
        names.append((style.name or "").lower())
        style = style.base_style
    return names


def _heading_level(style_names: list[str]) -> int | None:
    for name in style_names:
        if name == "title":
            return 1
        if match := _HEADING_STYLE.fullmatch(name):
            return int(match[1])
    return None
