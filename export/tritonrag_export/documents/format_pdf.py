"""PDF: the text layer, page by page."""

import re
from typing import Any, Final

import pypdfium2
from pypdfium2 import raw

from tritonrag_export.documents.content import Content
from tritonrag_export.documents.errors import ContentError
from tritonrag_export.documents.text import one_line, scrub

# How PDFium hands out a hyphen that ends a line inside a word, and the line end with it.
_SOFT_HYPHEN: Final = re.compile("[\ufffe\x02](?:\r?\n)?")
_PAGE_GAP: Final = "\n\n"


def read_pdf(data: bytes) -> Content:
    """Read a PDF's text. There are no headings, but `page_starts`. The title is the document information's."""
    document = _open(data)
    try:
        pages = [_page_text(document, number) for number in range(len(document))]
        title = one_line(scrub(document.get_metadata_dict().get("Title", "")))
    finally:
        document.close()
    if not any(page.strip() for page in pages):
        raise ContentError(
            f"is a PDF of {len(pages)} pages without any text, probably scanned; give it a text layer first (with OCR)"
        )
    starts, offset = [], 0
    for page in pages:
        starts.append(offset)
        offset += len(page) + len(_PAGE_GAP)
    return Content(text=_PAGE_GAP.join(pages), title=title or None, page_starts=tuple(starts))


def _open(data: bytes) -> Any:  # noqa: ANN401  # pypdfium2 ships no types
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise ContentError("is encrypted; save a copy without the password") from error
        if error.err_code == raw.FPDF_ERR_SECURITY:
            raise ContentError("is protected in a way that we can't read; save a copy without protection") from error
        raise ContentError("is not a PDF, or a damaged one; open it in a viewer and save it anew") from error


def _page_text(document: Any, number: int) -> str:  # noqa: ANN401  # pypdfium2 ships no types
    """The text of one page; "" for a page that PDFium can't load, as viewers show it blank too."""
    try:
        page = document[number]
    except pypdfium2.PdfiumError:
        return ""
    text_page = page.get_textpage()
    try:
        return scrub(_SOFT_HYPHEN.sub("", text_page.get_text_range()))
    finally:
        text_page.close()
        page.close()
