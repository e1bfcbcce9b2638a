"""The last steps of a segment, new or merged: its FAISS index, the tuned search effort, the record of its files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.ann import build_ann
from tritonrag_backends.index.arrays import record_file
from tritonrag_backends.index.disk import Disk
from tritonrag_backends.index.format import ANN_FILE, IndexOptions, OperatingPoint, SegmentRecord, segment_files
from tritonrag_backends.index.kinds import choose, default_point
from tritonrag_backends.index.segment import Segment, SegmentFiles
from tritonrag_backends.index.selection import Selection
from tritonrag_backends.index.tuning import tune
from tritonrag_backends.index.vectors import Float32Array, Int64Array, StoredVectors, VectorSpace

Step = Callable[[str, int], None]
"""Told what is being done and how many rows are done."""


def complete_segment(
    folder: Path,
    *,
    rows: int,
    options: IndexOptions,
    space: VectorSpace,
    queries: Float32Array | None,
    fields: tuple[str, ...],
    unfilterable: tuple[str, ...],
    disk: Disk,
    step: Step,
) -> SegmentRecord:
    """Build what searching needs over the finished files in `folder`, tune it to `queries` FP32 [n, dim], bring all to the disk.

    The record bears number 0 until the segment is published.
    """
    kind = choose(options.kind, rows)
    if kind != "flat":
        vectors = StoredVectors.open(folder, space.record, rows)
        build_ann(kind, vectors, folder / ANN_FILE, progress=lambda done: step(f"building the {kind} index", done))
    names = sorted(segment_files(kind, space.record.type))
    step("checking the files", rows)
    record = SegmentRecord(
        id="0",
        number=0,
        rows=rows,
        kind=kind,
        files={name: record_file(folder / name) for name in names},
        point=default_point(kind),
        fields=fields,
        unfilterable=unfilterable,
    )
    if kind != "flat" and queries is not None and len(queries):
        step(f"tuning the search to recall {options.recall_target:g}", rows)
        record = replace(record, point=_tuned(folder, record, space, queries, options.recall_target))
    for name in names:
        disk.sync(folder / name)
    disk.sync(folder)
    return record


class _Whole:
    """A segment to be tuned: all of its rows are searched."""

    def __init__(self, segment: Segment) -> None:
        self.kind: Kind = segment.record.kind
        self.rows = segment.rows
        self._segment = segment
        self._all = Selection(segment.files.lexical, rows=segment.rows, visible=None, allowed=None)

    def exact(self, queries: Float32Array, k: int) -> Int64Array:
        return self._segment.exact(queries, min(k, self.rows), self._all)[0]

    def scores(self, queries: Float32Array, rows: Int64Array) -> Float32Array:
        return self._segment.files.vectors.scores(queries, rows)

    def approximate(self, queries: Float32Array, k: int, point: OperatingPoint) -> Int64Array:
        return self._segment.search(queries, k, self._all, point)[0]


def _tuned(
    folder: Path, record: SegmentRecord, space: VectorSpace, queries: Float32Array, target: float
) -> OperatingPoint:
    files = SegmentFiles.open(folder, record, space.record, verify=False)
    return tune(_Whole(Segment(files, record, None)), space.reduce(queries), target=target)
