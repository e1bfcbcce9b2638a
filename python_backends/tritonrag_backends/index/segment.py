"""One segment, opened for reading: verified, mapped into memory, searched by its vectors."""

import mmap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.ann import Ann
from tritonrag_backends.index.arrays import check_file, damaged, map_array, map_bytes
from tritonrag_backends.index.fields import ALL_DOCUMENTS, document_key
from tritonrag_backends.index.filters import Filter
from tritonrag_backends.index.format import (
    ANN_FILE,
    FIELDS,
    OFFSETS_FILE,
    PASSAGES_FILE,
    ROW_BITS,
    SEGMENTS,
    SHARED,
    OperatingPoint,
    SegmentRecord,
    Tombstones,
    VectorRecord,
)
from tritonrag_backends.index.kinds import exact_is_cheaper
from tritonrag_backends.index.lexical import LexicalSegment
from tritonrag_backends.index.postings import Postings
from tritonrag_backends.index.selection import Selection, select
from tritonrag_backends.index.vectors import Float32Array, Int64Array, StoredVectors

Found = tuple[Int64Array, Float32Array]

# More candidates than are wanted, because FAISS's scores differ in their last bits from batch to batch (BLAS or not) and those of
# two near passages may swap: re-scored, the same question has the same answer alone and in any batch.
_MARGIN: Final = 8
_DOUBLINGS: Final = 3
_NEAR: Final = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentFiles:
    """The files of one segment, mapped: processes on one machine share the pages. Read-only and safe for many threads."""

    record: SegmentRecord
    vectors: StoredVectors
    offsets: Int64Array
    passages: mmap.mmap
    ann: Ann | None
    fields: Postings
    lexical: LexicalSegment

    @classmethod
    def open(cls, folder: Path, record: SegmentRecord, vectors: VectorRecord, *, verify: bool) -> Self:
        """Open the segment in `folder`; every file is checked before anything else reads it.

        `verify` false leaves the sha256 out and checks sizes and shapes alone. Raises InternalError that names the file.
        """
        for name, expected in sorted(record.files.items()):
            check_file(folder / name, expected, verify=verify)
        offsets = map_array(folder / OFFSETS_FILE, np.dtype("<i8"), (record.rows + 1,))
        passages = map_bytes(folder / PASSAGES_FILE)
        if offsets[0] != 0 or offsets[-1] != len(passages) or bool(np.any(np.diff(offsets) <= 0)):
            raise damaged(
                folder / OFFSETS_FILE, f"its offsets do not rise from 0 to the {len(passages)} bytes of passages"
            )
        ann = None
        if record.kind != "flat":
            ann = Ann.open(folder / ANN_FILE, kind=record.kind, rows=record.rows, dims=vectors.dims)
        return cls(
            record=record,
            vectors=StoredVectors.open(folder, vectors, record.rows),
            offsets=offsets,
            passages=passages,
            ann=ann,
            fields=Postings.open(folder, FIELDS, rows=record.rows, counts=False),
            lexical=LexicalSegment.open(folder, rows=record.rows),
        )


class Segment:
    """A segment as one version of the index sees it: its files, and which rows are not deleted (`alive` None: all)."""

    def __init__(self, files: SegmentFiles, record: SegmentRecord, alive: npt.NDArray[np.bool_] | None) -> None:
        self.files: Final = files
        self.record: Final = record
        self.alive: Final = alive

    @classmethod
    def open(
        cls,
        directory: Path,
        record: SegmentRecord,
        vectors: VectorRecord,
        *,
        verify: bool = True,
        reuse: "Segment | None" = None,
    ) -> "Segment":
        """Open `directory/segments/<id>`; `reuse` is the same segment in another version, whose open files serve this one too.

        Raises InternalError that names the file.
        """
        if reuse is not None and reuse.record.id == record.id and reuse.record.files == record.files:
            files = reuse.files
        else:
            files = SegmentFiles.open(directory / SEGMENTS / record.id, record, vectors, verify=verify)
        return cls(files, record, read_alive(directory, record.tombstones, record.rows, verify=verify))

    @property
    def number(self) -> int:
        """What its passages' ids begin with."""
        return self.record.number

    @property
    def rows(self) -> int:
        """Rows, the deleted ones among them."""
        return self.record.rows

    @property
    def live_rows(self) -> int:
        """Rows that are not deleted."""
        return self.record.live_rows

    def search(self, queries: Float32Array, k: int, selection: Selection, point: OperatingPoint | None = None) -> Found:
        """The best selected rows for each of FP32 [n, dims]: rows INT64 [n, k'], exact scores FP32 [n, k'], by score, then by row.

        k' is the smaller of k and what is selected. `point` None is the one in the manifest. What FAISS returns is held to the
        selection; a question for which it returns others, or too few, is compared with every selected row.
        """
        most = min(k, selection.count)
        if most == 0:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        point = point or self.record.point
        few = selection.allowed is not None and exact_is_cheaper(self.rows, selection.count)
        if self.files.ann is None or few:
            return self.exact(queries, most, selection)
        return self._rescored(queries, most, max(most + _MARGIN, most * point.rescore), selection, point)

    def exact(self, queries: Float32Array, k: int, selection: Selection) -> Found:
        """As `search`, by comparing with every selected row. k is at most what is selected."""
        return self._rescored(queries, k, k + _MARGIN, selection, None)

    def passage(self, row: int) -> bytes:
        """The wire JSON of a passage, as it lies on the disk."""
        return self.files.passages[int(self.files.offsets[row]) : int(self.files.offsets[row + 1])]

    def passages_of(self, document: str, tenant: str | None) -> list[bytes]:
        """The wire JSON of a document's passages that are not deleted, in order; none where it is not here."""
        position = self.files.fields.find(document_key(document, tenant))
        if position is None:
            return []
        rows = self.files.fields.rows_of(position)
        return [self.passage(int(row)) for row in (rows if self.alive is None else rows[self.alive[rows]])]

    def ids(self, rows: Int64Array) -> Int64Array:
        """The passages' ids."""
        return (np.int64(self.number) << ROW_BITS) | rows

    @cached_property
    def owners(self) -> Int64Array:
        """INT64 [rows]: the position of each row's document among the keys of `fields`."""
        documents = self.files.fields.span(*ALL_DOCUMENTS)
        passages = np.diff(self.files.fields.starts[documents.start : documents.stop + 1])
        owners = np.empty(self.rows, np.int64)
        owners[self.files.fields.rows_between(documents)] = np.repeat(
            np.arange(documents.start, documents.stop), passages
        )
        return owners

    @property
    def documents(self) -> Int64Array:
        """Positions of the documents that are not deleted among the keys of `fields`, ascending."""
        return np.unique(self.owners if self.alive is None else self.owners[self.alive])

    def select(self, tenant: str | None, filter: Filter | None) -> Selection:  # noqa: A002 - the term
        """The rows that this asker may see, and those of them that pass the filter."""
        return select(
            self.files.fields, self.files.lexical, rows=self.rows, alive=self.alive, tenant=tenant, filter=filter
        )

    def _rescored(
        self, queries: Float32Array, k: int, wanted: int, selection: Selection, point: OperatingPoint | None
    ) -> Found:
        """The best k by exact score among `wanted` candidates, twice as many where the cut goes through a tie.

        `point` says how hard the approximate index is searched for them; None: all selected rows are compared.
        """
        for _ in range(_DOUBLINGS + 1):
            wanted = min(wanted, selection.count)
            candidates = self._candidates(queries, k, wanted, selection, point)
            scores = self.files.vectors.scores(queries, candidates)
            order = np.lexsort((candidates, -scores), axis=1)
            rows, scores = np.take_along_axis(candidates, order, axis=1), np.take_along_axis(scores, order, axis=1)
            if wanted == selection.count or not _tied_at_the_cut(scores, k):
                break
            wanted *= 2
        return rows[:, :k], scores[:, :k]

    def _candidates(
        self, queries: Float32Array, k: int, wanted: int, selection: Selection, point: OperatingPoint | None
    ) -> Int64Array:
        """Rows INT64 [n, wanted]; a query for which FAISS found fewer than k, or any that must not be seen, is searched exactly."""
        if point is None or self.files.ann is None:
            return self.files.vectors.nearest(queries, wanted, selection.allowed)
        found = self.files.ann.find(queries, candidates=wanted, effort=point.effort, allowed=selection.bitmap)
        short = _fall_short(found, k, selection)
        if short.any():
            found = found.copy()
            found[short] = self.files.vectors.nearest(queries[short], wanted, selection.allowed)
        return found


def read_alive(
    directory: Path, tombstones: Tombstones | None, rows: int, *, verify: bool
) -> npt.NDArray[np.bool_] | None:
    """Which rows are not deleted, BOOL [rows]; None: all. Raises InternalError where the file is not what the manifest says."""
    if tombstones is None:
        return None
    path = directory / SHARED / tombstones.file.name
    check_file(path, tombstones.file, verify=verify)
    bits = map_array(path, np.dtype(np.uint8), (-(-rows // 8),))
    dead = np.unpackbits(bits, count=rows, bitorder="little").astype(np.bool_)
    if int(np.count_nonzero(dead)) != tombstones.rows:
        raise damaged(path, f"it marks {np.count_nonzero(dead)} rows where the manifest says {tombstones.rows}")
    return ~dead


def _fall_short(candidates: Int64Array, k: int, selection: Selection) -> npt.NDArray[np.bool_]:
    """Which queries got fewer than k candidates, or one that they must not see; BOOL [n]."""
    found = candidates >= 0
    short = np.asarray(found.sum(axis=1) < k, np.bool_)
    if selection.allowed is not None:
        short |= (found & ~selection.allowed[candidates]).any(axis=1)
    return short


def _tied_at_the_cut(scores: Float32Array, k: int) -> bool:
    """Whether a row that was not even a candidate could score as much as the k-th: then it might have the lower id."""
    return bool(np.any(scores[:, -1] > scores[:, k - 1] - _NEAR))
