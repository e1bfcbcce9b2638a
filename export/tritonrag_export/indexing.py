"""Documents to a live index version: chunk, embed, write, publish. Streams; memory does not grow with the corpus."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.disk import DISK, Disk
from tritonrag_backends.index.format import Counts, EmbeddingRecord, Kind, Manifest, SegmentRecord
from tritonrag_backends.index.kinds import KindChoice
from tritonrag_backends.index.lock import write_lock
from tritonrag_backends.index.store import next_segment_number, sweep
from tritonrag_backends.index.writer import SegmentWriter, publish
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, UnavailableError
from tritonrag_export.documents.chunking import DEFAULT_TARGET_TOKENS, chunk
from tritonrag_export.documents.cutting import TokenCounter
from tritonrag_export.documents.finding import Skipped
from tritonrag_export.documents.model import Document

# What is embedded. The title tells what a passage from the middle of a page is about.
TEMPLATE: Final = "{title}\n{text}"
# Passages embedded in one call: the encoder sorts them by length and packs about five to a batch, so the batches of a window
# come out even, and progress is told every few seconds on a slow machine too.
_WINDOW: Final = 256
# What the special tokens and the title may take of the tokens that the model reads; a longer title costs the passage's end.
_TITLE_TOKENS: Final = 32

Chunker = Callable[[Document], Iterable[Passage]]


class Embedded(Protocol):
    """What an encoder returns."""

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """FP32 [n, dim], unit length, in the order of the texts."""
        ...

    @property
    def truncated(self) -> int:
        """Texts that were longer than the model reads."""
        ...


class PassageEncoder(TokenCounter, Protocol):
    """What building needs of `tritonrag_backends.embedding.Encoder`."""

    @property
    def name(self) -> str: ...  # noqa: D102 - as in EmbeddingRecord
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def max_tokens(self) -> int: ...  # noqa: D102
    def encode(self, texts: Sequence[str]) -> Embedded:
        """Embed the texts in length-sorted batches."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildProgress:
    """How far the build is; told after every window of passages, and once more before the segment is completed.

    Completing a large segment of kind hnsw takes minutes (100k passages on two cores: 80 s).
    """

    phase: Literal["embedding", "completing"]

    documents: int
    passages: int
    skipped: int
    elapsed_s: float

    @property
    def passages_per_s(self) -> float:
        """Since the start."""
        return self.passages / self.elapsed_s if self.elapsed_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSummary:
    """What was built. `truncated` passages were longer than the model reads; `index_bytes` is the segment's size on the disk."""

    index_version: int
    kind: Kind
    documents: int
    passages: int
    truncated: int
    skipped: tuple[Skipped, ...]
    elapsed_s: float
    index_bytes: int

    @property
    def passages_per_s(self) -> float:
        """Over the whole build."""
        return self.passages / self.elapsed_s if self.elapsed_s > 0 else 0.0


def build_index(
    documents: Iterable[Document],
    encoder: PassageEncoder,
    output: Path,
    *,
    kind: KindChoice = "auto",
    target_tokens: int = DEFAULT_TARGET_TOKENS,
    chunker: Chunker | None = None,
    skipped: Sequence[Skipped] = (),
    progress: Callable[[BuildProgress], None] | None = None,
    disk: Disk = DISK,
) -> BuildSummary:
    """Build the next version of the index at `output` from these documents alone and make it live; older ones stay for rollback.

    `skipped` is read at the end, so a list that reading `documents` fills tells what it left out. `chunker` None cuts documents
    to passages of about `target_tokens`.
    Raises BadRequestError where there is no passage (the live version stays live), UnavailableError where another process is
    writing or the disk refuses. Killed at any point, it leaves the live version live.
    """
    with _disk_errors(output):
        disk.make_directory(output)
    with write_lock(output):
        with _disk_errors(output):
            sweep(output)
            number = next_segment_number(output)
        build = _Build(
            chunker=chunker or _chunker(encoder, target_tokens), encoder=encoder, skipped=skipped, progress=progress
        )
        with SegmentWriter(output, number=number, dim=encoder.dim, kind=kind, disk=disk) as writer:
            build.run(documents, writer, output)
            build.require_passages(writer.rows)
            build.tell("completing", writer.rows)
            with _disk_errors(output):
                segment = writer.finish()
                manifest = publish(
                    output,
                    embedding=_embedding_record(encoder),
                    segments=[segment],
                    counts=Counts(documents=build.documents, passages=segment.rows, skipped=len(build.skipped)),
                    disk=disk,
                )
        return build.summary(manifest, segment)


class _Build:
    """The running totals of one build."""

    def __init__(
        self,
        *,
        chunker: Chunker,
        encoder: PassageEncoder,
        skipped: Sequence[Skipped],
        progress: Callable[[BuildProgress], None] | None,
    ) -> None:
        self._chunker, self._encoder, self._unread, self._progress = chunker, encoder, skipped, progress
        self._empty: list[Skipped] = []
        self._truncated = 0
        self._started_s = time.monotonic()
        self.documents = 0

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What could not be read, and what held nothing to embed."""
        return (*self._unread, *self._empty)

    def run(self, documents: Iterable[Document], writer: SegmentWriter, output: Path) -> None:
        """Embed and write all passages, window by window."""
        window: list[Passage] = []
        for passage in self._passages(documents):
            window.append(passage)
            if len(window) == _WINDOW:
                self._write(window, writer, output)
                window = []
        if window:
            self._write(window, writer, output)

    def require_passages(self, rows: int) -> None:
        """Refuse to publish nothing; says what was looked at."""
        if rows:
            return
        skipped = self.skipped
        first = f"; the first: {skipped[0].path} {skipped[0].reason}" if skipped else ""
        raise BadRequestError(
            f"there is nothing to index: {self.documents + len(self._empty)} documents read without a passage in them, "
            f"{len(skipped)} files skipped{first}; name files or folders that hold text"
        )

    def summary(self, manifest: Manifest, segment: SegmentRecord) -> BuildSummary:
        """The totals, once the version is live."""
        return BuildSummary(
            index_version=manifest.index_version,
            kind=segment.kind,
            documents=self.documents,
            passages=segment.rows,
            truncated=self._truncated,
            skipped=self.skipped,
            elapsed_s=time.monotonic() - self._started_s,
            index_bytes=sum(file.bytes for file in segment.files.values()),
        )

    def _passages(self, documents: Iterable[Document]) -> Iterator[Passage]:
        for document in documents:
            found = False
            for passage in self._chunker(document):
                found = True
                yield passage
            if found:
                self.documents += 1
            else:
                self._empty.append(Skipped(path=document.uri, reason="holds no text to embed"))

    def _write(self, window: list[Passage], writer: SegmentWriter, output: Path) -> None:
        embedded = self._encoder.encode([embedding_text(passage) for passage in window])
        self._truncated += embedded.truncated
        with _disk_errors(output):
            writer.add(window, embedded.vectors)
        self.tell("embedding", writer.rows)

    def tell(self, phase: Literal["embedding", "completing"], rows: int) -> None:
        """Tell the caller how far the build is."""
        if self._progress is not None:
            self._progress(
                BuildProgress(
                    phase=phase,
                    documents=self.documents,
                    passages=rows,
                    skipped=len(self.skipped),
                    elapsed_s=time.monotonic() - self._started_s,
                )
            )


def embedding_text(passage: Passage) -> str:
    """The text whose vector stands for the passage."""
    return TEMPLATE.format(title=passage.title, text=passage.text)


def _chunker(encoder: PassageEncoder, target_tokens: int) -> Chunker:
    """Passages that, with their titles, are not longer than the model reads."""
    most = encoder.max_tokens - _TITLE_TOKENS
    return lambda document: chunk(document, encoder, target_tokens=min(target_tokens, most), max_tokens=most)


def _embedding_record(encoder: PassageEncoder) -> EmbeddingRecord:
    return EmbeddingRecord(
        name=encoder.name,
        fingerprint=encoder.fingerprint,
        dim=encoder.dim,
        precision=encoder.precision,
        template=TEMPLATE,
    )


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    """A full or read-only disk in words; the live version is not touched by it."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"the index {output} can't be written: {error.strerror or error}; make room or allow writing there and try again "
            "(a version that was live still is)"
        ) from error
