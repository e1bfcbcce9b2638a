"""From documents to a live index: what `index build` and `demo` share."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from tritonrag.terminal import Steps
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index.kinds import KindChoice
from tritonrag_backends.settings import Settings
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.chunking import chunk
from tritonrag_export.documents.finding import ReadSummary, Skipped
from tritonrag_export.documents.model import Document
from tritonrag_export.documents.pydoc_corpus import pydoc_documents
from tritonrag_export.documents.reading import READERS, read_documents
from tritonrag_export.indexing import BuildProgress, BuildSummary, build_index


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexJob:
    """Which documents become which index. `pydoc` adds the running Python's documentation to what `paths` name."""

    settings: Settings
    paths: tuple[Path, ...] = ()
    pydoc: bool = False
    kind: KindChoice = "auto"


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What reading left out; grows while the index is built."""

    skipped: list[Skipped] = field(default_factory=list)
    summary: ReadSummary = field(default_factory=ReadSummary)

    def documents(self, job: IndexJob) -> Iterator[Document]:
        """The job's documents. Raises NotFoundError for a path that does not exist, before anything is read."""
        sources: list[Iterable[Document]] = []
        if job.paths:
            sources.append(read_documents(job.paths, on_skip=self.skipped.append, summary=self.summary))
        if job.pydoc:
            sources.append(pydoc_documents(on_skip=self.skipped.append))
        return chain.from_iterable(sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The summary, and how many files of kinds that we do not read lay in the folders, by suffix."""

    summary: BuildSummary
    unsupported: dict[str, int]


def build(job: IndexJob, steps: Steps) -> Built:
    """Build the index and tell of each step; each skipped file is noted with its reason as it is met.

    Raises NotFoundError (a path, the embedding model), BadRequestError (nothing to index), UnavailableError (disk, lock).
    """
    reading = _Reading()
    documents = reading.documents(job)
    embedder = job.settings.embedder
    steps.step(f"opening the embedding model in {embedder.model}")
    encoder = Encoder.open(embedder.model, precision=embedder.precision, threads=len(os.sched_getaffinity(0)))
    steps.step("reading documents and embedding their passages")
    with _unsupported_kinds_told(reading.summary):
        summary = build_index(
            documents,
            encoder,
            job.settings.index,
            chunker=lambda document: chunk(document, encoder),
            kind=job.kind,
            skipped=reading.skipped,
            progress=lambda progress: _tell(progress, steps),
        )
    return Built(summary=summary, unsupported=dict(reading.summary.unsupported))


def kinds_in_words(unsupported: Mapping[str, int]) -> str:
    """Files of kinds that we do not read, counted by suffix."""
    return ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in sorted(unsupported.items()))


@contextmanager
def _unsupported_kinds_told(summary: ReadSummary) -> Iterator[None]:
    """Where there is nothing to index, the likeliest reason belongs in the message."""
    try:
        yield
    except BadRequestError as error:
        if summary.documents or not summary.unsupported:
            raise
        raise BadRequestError(
            f"{error.message} (not read, being of no supported kind: {kinds_in_words(summary.unsupported)};"
            f" supported are {' '.join(READERS)})"
        ) from error


def _tell(progress: BuildProgress, steps: Steps) -> None:
    steps.update(progress.passages)
    if progress.phase == "completing":
        steps.step(f"completing the index of {progress.passages:,} passages")
