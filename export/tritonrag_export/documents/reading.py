"""From paths to documents."""

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tritonrag_export.documents.content import Content, Reader
from tritonrag_export.documents.errors import ContentError, UnreadableDocumentError
from tritonrag_export.documents.finding import OnSkip, ReadSummary, Skipped, display_name, find_documents
from tritonrag_export.documents.format_docx import read_docx
from tritonrag_export.documents.format_html import read_html
from tritonrag_export.documents.format_markdown import read_markdown
from tritonrag_export.documents.format_pdf import read_pdf
from tritonrag_export.documents.format_rst import read_rst
from tritonrag_export.documents.format_text import read_text
from tritonrag_export.documents.model import Document

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


def read_document(path: Path, *, uri: str | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> Document:
    """Read one file; its suffix says how. The uri is the path as given unless told otherwise.

    Raises UnreadableDocumentError, which names the file, the reason and the way out.
    """
    name = display_name(path)
    reader = READERS.get(path.suffix.lower())
    try:
        if reader is None:
            raise ContentError(f"is of no supported kind; supported are {' '.join(READERS)}")  # noqa: TRY301  # one way out
        content = reader(_read_bytes(path, max_bytes))
        if not content.text.strip():
            raise ContentError("holds no text; leave it out")  # noqa: TRY301  # one way out
    except ContentError as error:
        raise UnreadableDocumentError(name, str(error)) from error
    except OSError as error:
        raise UnreadableDocumentError(
            name, f"can't be opened: {error.strerror}; check the file and its permissions"
        ) from error
    return _document(content, uri=uri or name, fallback_title=display_name(Path(path.name)))


def read_documents(
    paths: Sequence[Path],
    *,
    on_skip: OnSkip,
    summary: ReadSummary | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Iterator[Document]:
    """Read files and folders one document at a time. What can't be read is reported and counted, and reading goes on.

    Raises NotFoundError for a path that does not exist, before anything is read.
    """
    summary = ReadSummary() if summary is None else summary
    files = find_documents(paths, suffixes=frozenset(READERS), on_skip=on_skip, summary=summary)
    return _read_each(files, on_skip, summary, max_bytes)


def _read_each(files: Iterator[Path], on_skip: OnSkip, summary: ReadSummary, max_bytes: int) -> Iterator[Document]:
    for path in files:
        try:
            document = read_document(path, max_bytes=max_bytes)
        except UnreadableDocumentError as error:
            summary.skipped += 1
            on_skip(Skipped(path=error.path, reason=error.reason))
        else:
            summary.documents += 1
            yield document


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise ContentError("is not a regular file; leave it out")
    if status.st_size == 0:
        raise ContentError("is empty; leave it out")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)  # not st_size: a file may grow
    if len(data) > max_bytes:
        raise ContentError(f"has {status.st_size} bytes, over the limit of {max_bytes}; split it or raise the limit")
    return data


def _document(content: Content, *, uri: str, fallback_title: str) -> Document:
    return Document(
        uri=uri,
        title=content.title or fallback_title,
        text=content.text,
        headings=content.headings,
        page_starts=content.page_starts,
    )
