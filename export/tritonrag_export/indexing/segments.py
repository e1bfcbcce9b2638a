"""A stream of embedded passages to completed segments."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.change import Change
from tritonrag_backends.index.completing import complete_segment
from tritonrag_backends.index.disk import disk_errors
from tritonrag_backends.index.format import IndexOptions, SegmentRecord, SharedFile, VectorRecord
from tritonrag_backends.index.store import remove
from tritonrag_backends.index.vectors import StoredVectors, VectorSpace, train_pca
from tritonrag_backends.index.writer import RAW_FILE, SegmentWriter, store_vectors
from tritonrag_export.indexing.encoding import EncodedWindow, PassageEncoder
from tritonrag_export.indexing.held_out import HeldOutQueries
from tritonrag_export.indexing.job import BuildOptions
from tritonrag_export.indexing.run import Run

Float32Array = npt.NDArray[np.float32]
_PCA_ROWS: Final = 50_000
_RECALL_AT: Final = 10


class SegmentMaker:
    """Writes windows of passages to segments and hands these to the change. Call `shorten_to` or `keep_to` first."""

    def __init__(
        self, change: Change, run: Run, encoders: Sequence[PassageEncoder], *, options: IndexOptions, most_rows: int
    ) -> None:
        self._change, self._run, self._encoders = change, run, encoders
        self._options, self._most_rows = options, most_rows
        self._drawn = HeldOutQueries()
        self._queries: Float32Array | None = None
        self._space: VectorSpace | None = None
        self._wanted: BuildOptions | None = None
        self.queries_file: SharedFile | None = None

    def shorten_to(self, wanted: BuildOptions) -> None:
        """A new index: how its vectors are stored is decided with its first segment."""
        self._wanted = wanted

    def keep_to(self, space: VectorSpace, queries: Float32Array | None) -> None:
        """An index that is there: its vectors and its queries."""
        self._space, self._queries = space, queries

    @property
    def record(self) -> VectorRecord:
        """How vectors are stored; known once there is a segment."""
        assert self._space is not None  # noqa: S101 - asked after `make`
        return self._space.record

    def make(self, windows: Iterable[EncodedWindow]) -> list[SegmentRecord]:
        """Write all of it; the records bear no number yet. No window: no segment."""
        records: list[SegmentRecord] = []
        writer: SegmentWriter | None = None
        self._run.tell("embedding", self._run.written)
        try:
            for window in windows:
                self._drawn.see(window.passages)
                if writer is None:
                    writer = self._open()
                start = self._fitting(writer, window)
                self._write(writer, window, 0, start)
                if start < len(window.passages):
                    records.append(self._complete(writer))
                    writer = self._open()
                    self._write(writer, window, start, len(window.passages))
                self._run.truncated += window.truncated
                self._run.reused += window.reused
                self._run.tell("embedding", self._run.written)
            if writer is not None:
                records.append(self._complete(writer))
                writer = None
        finally:
            if writer is not None:
                writer.__exit__()
        return records

    def _open(self) -> SegmentWriter:
        with disk_errors(self._change.directory):
            return SegmentWriter(self._change.stage(), dim=self._encoders[0].dim, options=self._options)

    def _fitting(self, writer: SegmentWriter, window: EncodedWindow) -> int:
        """How many of the window's passages go into this segment: all, unless it is full; a document is never parted."""
        if writer.rows < self._most_rows:
            return len(window.passages)
        last = writer.last_document
        documents = ((new.document, new.tenant) for new in window.passages)
        return next((i for i, document in enumerate(documents) if document != last), len(window.passages))

    def _write(self, writer: SegmentWriter, window: EncodedWindow, start: int, stop: int) -> None:
        if start < stop:
            with disk_errors(self._change.directory):
                writer.add(window.passages[start:stop], window.vectors[start:stop])
            self._run.written += stop - start

    def _complete(self, writer: SegmentWriter) -> SegmentRecord:
        folder, rows = writer.folder, writer.rows
        with disk_errors(self._change.directory), writer:
            self._run.tell("writing the postings", rows, rows)
            writer.finish()
            self._prepare(folder, rows)
            record = complete_segment(
                folder,
                rows=rows,
                options=self._options,
                space=self._made_space,
                queries=self._queries,
                fields=writer.fields,
                unfilterable=writer.unfilterable,
                disk=self._change.disk,
                step=lambda what, done: self._run.tell(what, done, rows),
            )
        self._change.add(folder, record)
        return record

    @property
    def _made_space(self) -> VectorSpace:
        assert self._space is not None  # noqa: S101 - `_prepare` makes it
        return self._space

    def _prepare(self, folder: Path, rows: int) -> None:
        """The stored vectors; with the first segment of a new index, how they are stored and the queries too."""
        first = self._space is None
        if first:
            self._run.tell("embedding the questions to tune to", rows, rows)
            self._queries = self._drawn.embed(self._encoders)
            self.queries_file = self._change.share("queries", self._queries)
            self._space = self._new_space(folder)
        store_vectors(folder, self._made_space)
        if first and (folder / RAW_FILE).exists():
            self._run.tell("measuring what compression costs", rows, rows)
            self._space = self._with_recall(folder, rows)
        remove(folder / RAW_FILE)

    def _new_space(self, folder: Path) -> VectorSpace:
        wanted = self._wanted
        assert wanted is not None  # noqa: S101 - `shorten_to` was called
        dim = self._encoders[0].dim
        reduction = wanted.reduction_from(dim)
        projection, file = None, None
        if reduction == "pca":
            raw = np.load(folder / RAW_FILE, mmap_mode="r", allow_pickle=False)
            projection = train_pca(np.asarray(raw[:: max(1, len(raw) // _PCA_ROWS)]), wanted.dims or dim)
            file = self._change.share("projection", projection)
        record = VectorRecord(type=wanted.vectors, dims=wanted.dims or dim, reduction=reduction, projection=file)
        return VectorSpace(record=record, projection=projection)

    def _with_recall(self, folder: Path, rows: int) -> VectorSpace:
        """The space with what it costs: what exact search over the stored vectors finds of that over the model's own."""
        space, queries = self._made_space, self._queries
        assert queries is not None  # noqa: S101 - `_prepare` made them
        raw = StoredVectors(np.load(folder / RAW_FILE, mmap_mode="r", allow_pickle=False), None)
        stored = StoredVectors.open(folder, space.record, rows)
        k = min(_RECALL_AT, rows)
        wanted, found = raw.nearest(queries, k), stored.nearest(space.reduce(queries), k)
        recall = float(np.mean([np.isin(*pair).mean() for pair in zip(wanted, found, strict=True)]))
        return space.with_recall(recall)
