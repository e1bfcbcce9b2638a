"""From paths to what an index takes: the passages of one document after the other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.errors import FieldError
from tritonrag_export.documents.finding import OnSkip, ReadSummary, Skipped, display_name, find_documents
from tritonrag_export.documents.jsonl import JSONL_SUFFIX, read_jsonl
from tritonrag_export.documents.metadata import check_tenant
from tritonrag_export.documents.model import Document, DocumentPassages
from tritonrag_export.documents.reading import DEFAULT_MAX_BYTES, SUPPORTED, read_or_tell

Chunker = Callable[[Document], Iterable[Passage]]


def read_units(
    paths: Sequence[Path],
    *,
    chunker: Chunker,
    on_skip: OnSkip,
    summary: ReadSummary | None = None,
    tenant: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Iterator[DocumentPassages]:
    """Read files and folders, JSONL among them, one document at a time; `tenant` is that of each document without its own.

    What can't be read, or holds nothing to embed, is reported and counted, and reading goes on. `max_bytes` limits a document,
    not a JSONL file.
    Raises NotFoundError for a path that does not exist and BadRequestError for a tenant that is none, before anything is read;
    while reading, BadRequestError for a line of JSONL that can't be taken.
    """
    _check_tenant(tenant)
    summary = ReadSummary() if summary is None else summary
    files = find_documents(paths, suffixes=frozenset(SUPPORTED), on_skip=on_skip, summary=summary)
    reading = _Reading(
        chunker=chunker, tell=summary.counting(on_skip), summary=summary, tenant=tenant, max_bytes=max_bytes
    )
    return reading.files(files)


def units_of(
    documents: Iterable[Document],
    chunker: Chunker,
    on_skip: OnSkip,
    *,
    summary: ReadSummary | None = None,
    tenant: str | None = None,
) -> Iterator[DocumentPassages]:
    """The passages of documents that come from elsewhere; `tenant` is that of each document without its own.

    A document without anything to embed is reported and counted. Raises BadRequestError for a tenant that is none.
    """
    _check_tenant(tenant)
    summary = ReadSummary() if summary is None else summary
    reading = _Reading(chunker=chunker, tell=summary.counting(on_skip), summary=summary, tenant=tenant)
    return reading.documents(documents)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    chunker: Chunker
    tell: OnSkip
    summary: ReadSummary
    tenant: str | None
    max_bytes: int = DEFAULT_MAX_BYTES

    def files(self, files: Iterable[Path]) -> Iterator[DocumentPassages]:
        for path in files:
            if path.suffix.lower() == JSONL_SUFFIX:
                yield from self._lines(path)
            else:
                document = read_or_tell(path, self.tell, max_bytes=self.max_bytes)
                yield from self.documents([document] if document else [])

    def documents(self, documents: Iterable[Document]) -> Iterator[DocumentPassages]:
        for document in documents:
            passages = tuple(self.chunker(document))
            if passages:
                yield self._counted(DocumentPassages(id=document.uri, tenant=document.tenant, passages=passages))
            else:
                self.tell(Skipped(path=document.uri, reason="holds no text to embed"))

    def _lines(self, path: Path) -> Iterator[DocumentPassages]:
        before = self.summary.documents
        for unit in read_jsonl(path):
            yield self._counted(unit)
        if self.summary.documents == before:
            self.tell(Skipped(path=display_name(path), reason="holds no passages; leave it out"))

    def _counted(self, unit: DocumentPassages) -> DocumentPassages:
        self.summary.documents += 1
        return unit if unit.tenant is not None or self.tenant is None else replace(unit, tenant=self.tenant)


def _check_tenant(tenant: str | None) -> None:
    """A tenant that is not None but empty would be nobody's."""
    try:
        if tenant is not None:
            check_tenant(tenant)
    except FieldError as error:
        raise BadRequestError(f"{error}; name one, or leave it out for documents that everybody may see") from error
