"""From paths to documents."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tritonrag_export.documents.content import Content, Reader
from tritonrag_export.documents.errors import ContentError, FieldError, UnreadableDocumentError
from tritonrag_export.documents.files import read_bytes
from tritonrag_export.documents.finding import OnSkip, Skipped, display_name
from tritonrag_export.documents.format_docx import read_docx
from tritonrag_export.documents.format_html import read_html
from tritonrag_export.documents.format_markdown import read_markdown
from tritonrag_export.documents.format_pdf import read_pdf
from tritonrag_export.documents.format_rst import read_rst
from tritonrag_export.documents.format_text import read_text
from tritonrag_export.documents.jsonl import JSONL_SUFFIX
from tritonrag_export.documents.metadata import check_metadata_size
from tritonrag_export.documents.model import Document
from tritonrag_export.documents.side_car import SideCar, read_side_car

DEFAULT_MAX_BYTES: Final = 256 << 20

READERS: Final[Mapping[str, Reader]] = MappingProxyType({
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_text,
    ".text": read_text,
    ".rst": read_rst,
    ".html": read_html,
    ".htm": read_html,
    ".pdf": read_pdf,
    ".docx": read_docx,
})  # fmt: skip

# What can be indexed, for messages. JSONL holds passages rather than a document, so it has no reader here.
SUPPORTED: Final = (*READERS, JSONL_SUFFIX)


def read_document(path: Path, *, uri: str | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> Document:
    """Read one file, its suffix says how, and its side-car. The uri is the path as given unless told otherwise.

    Raises UnreadableDocumentError, which names the file, the reason and the way out.
    """
    name = display_name(path)
    try:
        reader = _reader(path)
        content = reader(
            read_bytes(path, max_bytes, advice="leave it out", advice_if_long="split it or raise the limit")
        )
        if not content.text.strip():
            raise ContentError("holds no text; leave it out")  # noqa: TRY301  # one way out
        side_car = read_side_car(path)
        return _document(content, side_car, uri=uri or name, fallback_title=display_name(Path(path.name)))
    except ContentError as error:
        raise UnreadableDocumentError(name, str(error)) from error
    except OSError as error:
        raise UnreadableDocumentError(
            name, f"can't be opened: {error.strerror}; check the file and its permissions"
        ) from error


def read_or_tell(path: Path, tell: OnSkip, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Document | None:
    """Read one file; where that can't be done, `tell` why and return None."""
    try:
        return read_document(path, max_bytes=max_bytes)
    except UnreadableDocumentError as error:
        tell(Skipped(path=error.path, reason=error.reason))
        return None


def _reader(path: Path) -> Reader:
    suffix = path.suffix.lower()
    if suffix == JSONL_SUFFIX:
        raise ContentError("holds passages instead of a document; read it with read_units")
    if suffix not in READERS:
        raise ContentError(f"is of no supported kind; supported are {' '.join(SUPPORTED)}")
    return READERS[suffix]


def _document(content: Content, side_car: SideCar | None, *, uri: str, fallback_title: str) -> Document:
    """The side-car wins over what the file tells of itself."""
    told = side_car or SideCar(title=None, tenant=None, metadata={})
    metadata = {**content.metadata, **told.metadata}
    try:
        check_metadata_size(metadata)  # each was checked; together they may be too much
    except FieldError as error:
        raise ContentError(f"has too much metadata in front matter and side-car: {error}; shorten it") from error
    return Document(
        uri=uri,
        title=told.title or content.title or fallback_title,
        text=content.text,
        headings=content.headings,
        page_starts=content.page_starts,
        metadata=metadata,
        tenant=told.tenant,
    )
