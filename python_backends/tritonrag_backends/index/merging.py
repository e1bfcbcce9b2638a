"""Merging segments: many small ones to one, deleted rows left out. Runs beside readers and other writers.

The merged segment is written under a lock of its own; the write lock is held for publication alone. What was deleted meanwhile is
carried over. A version that was built anew meanwhile wins: the merged segment is thrown away.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.change import changing, open_live
from tritonrag_backends.index.completing import Step, complete_segment
from tritonrag_backends.index.disk import DISK, Disk, disk_errors
from tritonrag_backends.index.format import (
    FIELDS,
    OFFSETS_FILE,
    PASSAGES_FILE,
    SCALES_FILE,
    STAGING,
    VECTORS_FILE,
    Manifest,
    SegmentRecord,
)
from tritonrag_backends.index.lexical import merge_lexical
from tritonrag_backends.index.lock import merge_lock
from tritonrag_backends.index.postings import Postings
from tritonrag_backends.index.postings_writer import merge_postings
from tritonrag_backends.index.search import Index
from tritonrag_backends.index.segment import Segment
from tritonrag_backends.index.store import MERGE_STAGING, open_queries, open_space, remove
from tritonrag_backends.index.vectors import BLOCK_ROWS, DTYPES
from tritonrag_backends.index.writer import ArrayFile

Int64Array = npt.NDArray[np.int64]

# Segments of like size are merged once there are this many (O'Neil et al., The log-structured merge-tree, 1996): each passage is
# rewritten log4(n) times at most, and a version has at most 3 segments of each size.
SEGMENTS_OF_A_SIZE: Final = 4
_SMALLEST: Final = 1_000  # below, all sizes are the same
_MOST_DELETED_SHARE: Final = 0.25
# A merged segment holds at most as many: building it is what takes memory.
MOST_MERGED_ROWS: Final = 4_000_000
_PUBLISH_WAIT_S: Final = 3600.0  # the work is done: another writer is waited for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Source:
    """A segment to be merged. `rows` INT64 [n] are those that are kept; `row_map` INT64 [rows] is where each goes, -1 nowhere."""

    segment: Segment
    rows: Int64Array
    row_map: Int64Array


def plan_merge(segments: Sequence[SegmentRecord], *, everything: bool = False) -> list[SegmentRecord]:
    """The segments to merge next: all of them, or what the policy says; none where there is nothing to do.

    The policy: of segments of like size four make one; one of which more than a quarter is deleted is rewritten, if it is not
    small.
    """
    small = [record for record in segments if record.live_rows <= MOST_MERGED_ROWS]
    if everything:
        return _that_fit(small) if len(small) > 1 or any(record.tombstones for record in small) else []
    sizes: dict[int, list[SegmentRecord]] = {}
    for record in small:
        sizes.setdefault(_size(record), []).append(record)
    for size in sorted(sizes):
        if len(sizes[size]) >= SEGMENTS_OF_A_SIZE:
            return _that_fit(sizes[size])
    return [
        record
        for record in small
        if record.rows >= _SMALLEST and record.rows - record.live_rows > _MOST_DELETED_SHARE * record.rows
    ][:1]


def merge(
    directory: Path,
    *,
    everything: bool = False,
    wait_s: float = 0.0,
    disk: Disk = DISK,
    step: Step = lambda _what, _rows: None,
) -> Manifest | None:
    """Merge segments once, as `plan_merge` says; the version that came of it, None where there was nothing to do.

    Raises UnavailableError where another process is merging, or writing for longer than `wait_s` (but an hour at least: the work
    is done), InternalError where a segment to be merged is damaged.
    """
    if not plan_merge(open_live(directory).manifest.segments, everything=everything):
        return None
    with disk_errors(directory), merge_lock(directory, wait_s=wait_s):
        base = open_live(directory)
        chosen = {record.id for record in plan_merge(base.manifest.segments, everything=everything)}
        sources = list(_sources(directory, base, chosen))
        folder = directory / STAGING / MERGE_STAGING
        try:
            remove(folder)
            record = _write(directory, base.manifest, sources, folder, disk=disk, step=step)
            return _publish(directory, sources, folder, record, wait_s=max(wait_s, _PUBLISH_WAIT_S), disk=disk)
        finally:
            with suppress(OSError):
                remove(folder)


def _publish(
    directory: Path, sources: Sequence[_Source], folder: Path, record: SegmentRecord, *, wait_s: float, disk: Disk
) -> Manifest | None:
    with changing(directory, wait_s=wait_s, disk=disk) as change:
        live = open_live(directory)
        now = {segment.record.id: segment for segment in live.segments}
        if any(source.segment.record.id not in now for source in sources):
            return None
        dead = np.zeros(record.rows, np.bool_)
        for source in sources:
            alive = now[source.segment.record.id].alive
            if alive is not None:
                dead[source.row_map[source.rows[~alive[source.rows]]]] = True
        merged = {source.segment.record.id for source in sources}
        if not dead.all():
            change.add(folder, record, dead)
        kept = [one for one in live.manifest.segments if one.id not in merged]
        return change.commit("index merge", live.manifest, kept)


def _sources(directory: Path, base: Index, chosen: set[str]) -> Iterator[_Source]:
    first = 0
    for record in base.manifest.segments:
        if record.id in chosen:
            # Checked in full: damage must not be copied under a new digest.
            segment = Segment.open(directory, record, base.manifest.vectors, verify=True)
            alive = np.ones(segment.rows, np.bool_) if segment.alive is None else segment.alive
            rows = np.flatnonzero(alive)
            row_map = np.full(segment.rows, -1, np.int64)
            row_map[rows] = np.arange(first, first + len(rows))
            first += len(rows)
            yield _Source(segment=segment, rows=rows, row_map=row_map)


def _write(
    directory: Path, manifest: Manifest, sources: Sequence[_Source], folder: Path, *, disk: Disk, step: Step
) -> SegmentRecord:
    disk.make_directory(folder)
    _copy_passages(sources, folder, step)
    _copy_vectors(sources, folder, manifest, step)
    fields: list[tuple[Postings, Int64Array]] = [(one.segment.files.fields, one.row_map) for one in sources]
    merge_postings(fields, folder, FIELDS, counts=False)
    merge_lexical([(one.segment.files.lexical, one.row_map) for one in sources], folder)
    unfilterable = {field for one in sources for field in one.segment.record.unfilterable}
    filterable = {field for one in sources for field in one.segment.record.fields} - unfilterable
    return complete_segment(
        folder,
        rows=sum(len(one.rows) for one in sources),
        options=manifest.options,
        space=open_space(directory, manifest),
        queries=open_queries(directory, manifest),
        fields=tuple(sorted(filterable)),
        unfilterable=tuple(sorted(unfilterable)),
        disk=disk,
        step=step,
    )


def _copy_passages(sources: Sequence[_Source], folder: Path, step: Step) -> None:
    lengths = [np.diff(one.segment.files.offsets)[one.rows] for one in sources]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths))])
    np.save(folder / OFFSETS_FILE, offsets.astype("<i8"), allow_pickle=False)
    done = 0
    with (folder / PASSAGES_FILE).open("wb") as file:
        for one in sources:
            for row in one.rows:
                file.write(one.segment.passage(int(row)))
            done += len(one.rows)
            step("copying passages", done)


def _copy_vectors(sources: Sequence[_Source], folder: Path, manifest: Manifest, step: Step) -> None:
    """As they are stored: nothing is rounded twice."""
    record = manifest.vectors
    vectors = ArrayFile(folder / VECTORS_FILE, DTYPES[record.type], record.dims)
    scales = ArrayFile(folder / SCALES_FILE, np.dtype("<f4"), None) if record.type == "int8" else None
    for one in sources:
        for start in range(0, len(one.rows), BLOCK_ROWS):
            stored, factors = one.segment.files.vectors.stored(one.rows[start : start + BLOCK_ROWS])
            vectors.append(stored)
            if scales is not None and factors is not None:
                scales.append(factors)
            step("copying vectors", vectors.rows)
    vectors.close()
    if scales is not None:
        scales.close()


def _size(record: SegmentRecord) -> int:
    """Which power of four its rows come to; 0: it is small."""
    return 0 if record.live_rows < _SMALLEST else 1 + int(math.log(record.live_rows / _SMALLEST, SEGMENTS_OF_A_SIZE))


def _that_fit(segments: Sequence[SegmentRecord]) -> list[SegmentRecord]:
    """The smallest of them, as many as one segment may hold, in the order of the manifest."""
    chosen: list[SegmentRecord] = []
    rows = 0
    for record in sorted(segments, key=lambda one: one.live_rows):
        if rows + record.live_rows <= MOST_MERGED_ROWS:
            chosen.append(record)
            rows += record.live_rows
    return [record for record in segments if record in chosen] if len(chosen) > 1 or chosen[0].tombstones else []
