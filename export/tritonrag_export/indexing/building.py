"""Building an index anew, and adding documents to one that is there."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tritonrag_backends.index.change import Change, changing, open_live
from tritonrag_backends.index.disk import DISK, Disk, disk_errors
from tritonrag_backends.index.fitness import require_same_model
from tritonrag_backends.index.format import Counts, EmbeddingRecord, Manifest
from tritonrag_backends.index.search import Index
from tritonrag_backends.index.store import open_queries, open_space
from tritonrag_backends.index.writer import NewPassage, encode_passage
from tritonrag_export.documents.finding import Skipped
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_export.indexing.encoding import (
    TEMPLATE,
    EncodedWindow,
    PassageEncoder,
    encode_windows,
    given_windows,
)
from tritonrag_export.indexing.given import VectorFile
from tritonrag_export.indexing.job import BuildOptions, BuildProgress, BuildSummary
from tritonrag_export.indexing.resume import EmbeddingJournal
from tritonrag_export.indexing.run import Run
from tritonrag_export.indexing.segments import SegmentMaker

Tell = Callable[[BuildProgress], None]


def build_index(
    documents: Iterable[DocumentPassages],
    encoders: Sequence[PassageEncoder],
    output: Path,
    *,
    options: BuildOptions | None = None,
    vectors: Path | None = None,
    skipped: Sequence[Skipped] = (),
    progress: Tell | None = None,
    wait_s: float = 0.0,
    disk: Disk = DISK,
) -> BuildSummary:
    """Build the next version of the index at `output` from these documents alone and make it live; older ones stay for rollback.

    `encoders` are one or more of the same model, used at the same time. `vectors` is a .npy file with a vector for each passage in
    their order: then nothing but a sample is embedded. `skipped` is read at the end, so a list that reading `documents` fills
    tells what it left out.
    Raises BadRequestError where there is no passage, an id comes twice or a vector is wrong, UnavailableError where another process
    is writing or the disk refuses: the live version stays live. What was embedded before an error or a kill is used again.
    """
    options = options or BuildOptions()
    encoder = encoders[0]
    options.reduction_from(encoder.dim)
    run = Run(skipped=skipped, progress=progress)
    with changing(output, wait_s=wait_s, disk=disk) as change:
        maker = SegmentMaker(change, run, encoders, options=options.of_index, most_rows=options.segment_passages)
        maker.shorten_to(options)
        passages = run.passages(documents, keep=lambda _: True)
        with _encoded(passages, encoders, output, vectors) as windows:
            segments = maker.make(windows)
        run.require_passages()
        base = _template(encoder, maker, options, len(run.skipped))
        manifest = change.commit("index build", base, ())
    return run.summary(manifest, segments)


def add_documents(
    documents: Iterable[DocumentPassages],
    encoders: Sequence[PassageEncoder],
    output: Path,
    *,
    vectors: Path | None = None,
    segment_passages: int | None = None,
    skipped: Sequence[Skipped] = (),
    progress: Tell | None = None,
    wait_s: float = 0.0,
    disk: Disk = DISK,
) -> BuildSummary:
    """Publish a version with these documents besides those that are there; one that is there already is replaced if it has changed.

    How vectors are stored and searched is as the index was built. Nothing new: no new version. Raises NotFoundError where there is
    no index, BadRequestError where another model made it, and otherwise as `build_index`.
    """
    encoder = encoders[0]
    run = Run(skipped=skipped, progress=progress)
    open_live(output)  # before a lock makes the directory
    with changing(output, wait_s=wait_s, disk=disk) as change:
        live = open_live(output)
        require_same_model(live.manifest, encoder.fingerprint, encoder.name)
        maker = SegmentMaker(
            change,
            run,
            encoders,
            options=live.manifest.options,
            most_rows=segment_passages or BuildOptions().segment_passages,
        )
        maker.keep_to(open_space(output, live.manifest), open_queries(output, live.manifest))
        passages = run.passages(documents, keep=lambda unit: _replace(unit, live, change, run))
        with _encoded(passages, encoders, output, vectors) as windows:
            segments = maker.make(windows)
        manifest = live.manifest
        if segments:
            manifest = change.commit("index add", live.manifest, live.manifest.segments)
    return run.summary(manifest, segments)


@contextmanager
def _encoded(
    passages: Iterable[NewPassage], encoders: Sequence[PassageEncoder], output: Path, vectors: Path | None
) -> Iterator[Iterable[EncodedWindow]]:
    """Passages with their vectors, from a file or from the encoders; what these make outlives an error, for the next run."""
    encoder = encoders[0]
    if vectors is not None:
        given = VectorFile(vectors, encoder)
        yield given_windows(passages, given)
        given.finish()
        return
    with disk_errors(output):
        journal = EmbeddingJournal(
            output, fingerprint=encoder.fingerprint, precision=encoder.precision, dim=encoder.dim
        )
    with journal:
        yield encode_windows(passages, encoders, journal)
    journal.done()


def _replace(unit: DocumentPassages, live: Index, change: Change, run: Run) -> bool:
    """Whether the document is new or has changed; an older state of it is deleted."""
    if _stored(unit, live) == [encode_passage(passage) for passage in unit.passages]:
        run.unchanged += 1
        return False
    if change.delete(live.segments, unit.id, unit.tenant):
        run.replaced += 1
    return True


def _stored(unit: DocumentPassages, live: Index) -> list[bytes]:
    """The document's passages as they are in the live version, in order."""
    return [data for segment in live.segments for data in segment.passages_of(unit.id, unit.tenant)]


def _template(encoder: PassageEncoder, maker: SegmentMaker, options: BuildOptions, skipped: int) -> Manifest:
    """A version without segments; `commit` gives it number, time, segments and counts."""
    return Manifest(
        index_version=1,
        last_segment=0,
        created_at="",
        cause="index build",
        embedding=EmbeddingRecord(
            name=encoder.name,
            fingerprint=encoder.fingerprint,
            dim=encoder.dim,
            precision=encoder.precision,
            template=TEMPLATE,
        ),
        vectors=maker.record,
        options=options.of_index,
        segments=(),
        counts=Counts(documents=0, passages=0, skipped=skipped),
        queries=maker.queries_file,
    )
