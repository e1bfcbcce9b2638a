"""From documents to a live index: what `index build`, `index add` and `demo` share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from tritonrag.index_options import ALL_CORES
from tritonrag.terminal import Steps
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.settings import Settings
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.chunking import DEFAULT_TARGET_TOKENS, chunk, fitting_tokens
from tritonrag_export.documents.finding import ReadSummary, Skipped, find_documents
from tritonrag_export.documents.jsonl import JSONL_SUFFIX
from tritonrag_export.documents.model import Document, DocumentPassages
from tritonrag_export.documents.pydoc_corpus import pydoc_documents
from tritonrag_export.documents.reading import SUPPORTED
from tritonrag_export.documents.units import read_units, units_of
from tritonrag_export.indexing import BuildOptions, BuildProgress, BuildSummary, add_documents, build_index


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexJob:
    """Which documents become which index. `pydoc` adds the running Python's documentation to what `paths` name.

    `adding`: to the index that is there, whose options hold; else a new version is built from these alone.
    """

    settings: Settings
    paths: tuple[Path, ...] = ()
    pydoc: bool = False
    options: BuildOptions = field(default_factory=BuildOptions)
    adding: bool = False
    vectors_from: Path | None = None
    tenant: str | None = None
    workers: int = ALL_CORES
    wait_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What reading left out; grows while the index is built."""

    skipped: list[Skipped] = field(default_factory=list)
    summary: ReadSummary = field(default_factory=ReadSummary)

    def documents(self, job: IndexJob, encoders: Sequence[Encoder]) -> Iterator[DocumentPassages]:
        """The job's documents; the encoders may be opened later, before the first is taken.

        Raises NotFoundError for a path that does not exist, before anything is read.
        """

        def chunker(document: Document) -> Iterable[Passage]:
            most = fitting_tokens(encoders[0].passage_tokens)
            return chunk(document, encoders[0], target_tokens=min(DEFAULT_TARGET_TOKENS, most), max_tokens=most)

        sources: list[Iterable[DocumentPassages]] = []
        if job.paths:
            sources.append(
                read_units(
                    job.paths, chunker=chunker, on_skip=self.skipped.append, summary=self.summary, tenant=job.tenant
                )
            )
        if job.pydoc:
            documents = pydoc_documents(on_skip=self.skipped.append)
            sources.append(units_of(documents, chunker=chunker, on_skip=self.skipped.append, tenant=job.tenant))
        return chain.from_iterable(sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The summary, and how many files of kinds that we do not read lay in the folders, by suffix."""

    summary: BuildSummary
    unsupported: dict[str, int]


def run_job(job: IndexJob, steps: Steps) -> Built:
    """Build or add, and tell of each step; each skipped file is noted with its reason as it is met.

    Raises NotFoundError (a path, the embedding model, the index to add to), BadRequestError (nothing to index, bad input),
    UnavailableError (disk, lock).
    """
    if not job.paths and not job.pydoc:
        raise BadRequestError("there is nothing to index; name files or folders, or give --corpus pydoc")
    encoders: list[Encoder] = []
    reading = _Reading()
    documents = reading.documents(job, encoders)
    embedder = job.settings.embedder
    steps.step(f"opening the embedding model in {embedder.model}")
    encoders += (Encoder.open(embedder.model, precision=embedder.precision, threads=1) for _ in range(job.workers))
    bar = _Bar(steps, _count(job.paths) if job.paths and not job.pydoc else None)
    with _unsupported_kinds_told(reading.summary):
        make = add_documents if job.adding else partial(build_index, options=job.options)
        summary = make(
            documents,
            encoders,
            job.settings.index,
            vectors=job.vectors_from,
            skipped=reading.skipped,
            progress=bar.tell,
            wait_s=job.wait_s,
        )
    return Built(summary=summary, unsupported=dict(reading.summary.unsupported))


def _count(paths: tuple[Path, ...]) -> int:
    """How many documents there will be, about, for the remaining time: files, and lines of JSONL."""
    files = find_documents(paths, suffixes=frozenset(SUPPORTED), on_skip=lambda _: None, summary=ReadSummary())
    return sum(_lines(path) if path.suffix.lower() == JSONL_SUFFIX else 1 for path in files)


def _lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 1  # reading it will say what is wrong


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
            f" supported are {' '.join(SUPPORTED)})"
        ) from error


class _Bar:
    """A step for each thing that a build does, with rate and remaining time; `documents` None: nobody knows how many there are."""

    def __init__(self, steps: Steps, documents: int | None) -> None:
        self._steps, self._documents, self._what = steps, documents, ""

    def tell(self, progress: BuildProgress) -> None:
        """Show how far the build is."""
        if progress.what != self._what:
            self._what = progress.what
            self._steps.step(progress.what)
        if progress.what != "embedding":
            self._steps.update(progress.passages, progress.total)
            return
        detail = f"{progress.passages:,} passages, {progress.passages_per_s:,.0f}/s"
        if progress.reused:
            detail += f", {progress.reused:,} embedded before"
        left_s = self._left_s(progress)
        if left_s is not None:
            detail += f", about {_duration(left_s)} left"
        self._steps.update(progress.documents, self._documents, detail=detail)

    def _left_s(self, progress: BuildProgress) -> float | None:
        done = progress.documents + progress.skipped
        if self._documents is None or not 0 < done <= self._documents:
            return None
        return progress.elapsed_s * (self._documents - done) / done


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
