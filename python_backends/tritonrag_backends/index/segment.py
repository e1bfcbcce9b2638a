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
from tritonrag_backends.index.checking import check_files
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
from tritonrag_backends.index.gpu.exact import search_exactly
from tritonrag_backends.index.gpu.finder import Finder
from tritonrag_backends.index.gpu.placing import ON_THE_CPU, Placeable, Placed
from tritonrag_backends.index.kinds import exact_is_cheaper
from tritonrag_backends.index.lexical import LexicalSegment
from tritonrag_backends.index.postings import Postings
from tritonrag_backends.index.rescoring import Candidates, Found, found_at_all, rescored
from tritonrag_backends.index.selection import Selection, select
from tritonrag_backends.index.vectors import Float32Array, Int64Array, StoredVectors


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
        check_files({folder / name: expected for name, expected in sorted(record.files.items())}, verify=verify)
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
    """A segment as one version of the index sees it: its files, which rows are not deleted (`alive` None: all), where it is
    searched.
    """

    def __init__(
        self,
        files: SegmentFiles,
        record: SegmentRecord,
        alive: npt.NDArray[np.bool_] | None,
        placed: Placed = ON_THE_CPU,
    ) -> None:
        self.files: Final = files
        self.record: Final = record
        self.alive: Final = alive
        self.placed: Final = placed

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
        """Open `directory/segments/<id>`; `reuse` is the same segment in another version, whose open files and place on devices
        serve this one too.

        Raises InternalError that names the file.
        """
        placed = ON_THE_CPU
        if reuse is not None and reuse.record.id == record.id and reuse.record.files == record.files:
            files, placed = reuse.files, reuse.placed
        else:
            files = SegmentFiles.open(directory / SEGMENTS / record.id, record, vectors, verify=verify)
        return cls(files, record, read_alive(directory, record.tombstones, record.rows, verify=verify), placed)

    @property
    def placeable(self) -> Placeable:
        """What is needed to bring it onto devices."""
        return Placeable(
            number=self.number,
            kind=self.record.kind,
            point=self.record.point,
            vectors=self.files.vectors,
            before=self.placed,
        )

    def at(self, placed: Placed) -> "Segment":
        """The same, searched there."""
        return Segment(self.files, self.record, self.alive, placed)

    @property
    def degraded(self) -> str:
        """Why it is searched on the CPU, where it was to be searched on a device; else ""."""
        if self.placed.finder is None or not self.placed.finder.trouble:
            return self.placed.gave_up
        return f"segment {self.number} is searched on the CPU: {self.placed.finder.trouble}"

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

        k' is the smaller of k and what is selected. `point` None is the one in the manifest, and on devices their own; another is
        always searched on the CPU. What FAISS returns is held to the selection; a question for which it returns others, or too few,
        is compared with every selected row.
        """
        most = min(k, selection.count)
        if most == 0:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        if point is None and self.placed.finder is not None:
            found = self._on_devices(self.placed.finder, queries, most, selection)
            if found is not None:
                return found
        few = selection.allowed is not None and exact_is_cheaper(self.rows, selection.count)
        ann, point = self.files.ann, point or self.record.point
        if ann is None or few:
            return self.exact(queries, most, selection)

        def near(wanted: int) -> Int64Array:
            return ann.find(queries, candidates=wanted, effort=point.effort, allowed=selection.bitmap)

        return found_at_all(self._rescored(queries, most, selection, near, rescore=point.rescore))

    def exact(self, queries: Float32Array, k: int, selection: Selection) -> Found:
        """As `search`, by comparing with every selected row on the CPU. k is at most what is selected."""

        def near(wanted: int) -> Int64Array:
            return self.files.vectors.nearest(queries, wanted, selection.allowed)

        return found_at_all(self._rescored(queries, k, selection, near))

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

    def _on_devices(self, finder: Finder, queries: Float32Array, k: int, selection: Selection) -> Found | None:
        """With candidates from devices; None where these failed, or are not the way to find so many of so few."""
        if finder.exact:
            best = search_exactly(finder, self.files.vectors, queries, k, selection)
            left = ~best.certain
            if left.any():
                best.rows[left], best.scores[left] = self.exact(queries[left], k, selection)
            return best.rows, best.scores

        def near(wanted: int) -> Int64Array | None:
            proposed = finder.find(queries, wanted, selection) if finder.suits(wanted, selection) else None
            return None if proposed is None else proposed.rows

        return self._rescored(queries, k, selection, near, rescore=finder.point.rescore)

    def _rescored(
        self, queries: Float32Array, k: int, selection: Selection, find: Candidates, *, rescore: int = 1
    ) -> Found | None:
        return rescored(self.files.vectors, queries, k, selection, find, rescore=rescore)


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
