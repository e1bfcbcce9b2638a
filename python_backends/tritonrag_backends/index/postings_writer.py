"""Writing postings: streamed from passages, or merged from the postings of several segments. Memory grows with the keys alone."""

import heapq
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.format import COUNTS_PART
from tritonrag_backends.index.postings import (
    COUNT_TYPE,
    INT64,
    KEY_OFFSETS_PART,
    KEYS_PART,
    ROW_TYPE,
    ROWS_PART,
    STARTS_PART,
    Int64Array,
    Postings,
    UInt16Array,
    UInt32Array,
)

# Entries that are held at a time: 20 MB of them and about 100 MB while they are sorted.
BLOCK: Final = 2_000_000
_MOST_COUNT: Final = np.iinfo(np.uint16).max
_LOW_BITS: Final = np.uint64(32)

RowMap = Int64Array  # the new row of each old one, ascending; -1 for those that are dropped


class PostingsWriter:
    """Collects keys row by row into the postings `name` in `folder`.

    Entries (key, row, count) go to a temporary file block by block and are dealt out to their keys by `finish`. Memory: the
    distinct keys (about 150 bytes each beside their own) and one block.
    """

    def __init__(self, folder: Path, name: str, *, counts: bool) -> None:
        self._folder, self._name, self._counted = folder, name, counts
        self._ids = _Ids()
        self._sizes: Int64Array = np.zeros(0, np.int64)  # entries of each key id
        self._last_row = -1
        self._path = folder / f"{name}.entries.tmp"
        self._file: BinaryIO = self._path.open("w+b")
        self._blocks: list[int] = []
        self._clear()

    def add(self, row: int, keys: Mapping[bytes, int] | Iterable[bytes]) -> None:
        """Add a row with its distinct keys: with how often it bears each where postings have counts, else just the keys.

        Rows come in ascending order. No key is empty.
        """
        assert row > self._last_row  # noqa: S101 - each row once, in order: what rows_of promises rests on it
        self._last_row = row
        assert isinstance(keys, Mapping) == self._counted  # noqa: S101 - or counts would slip
        before = len(self._key_ids)
        self._key_ids.extend(map(self._ids.__getitem__, keys))
        if isinstance(keys, Mapping):
            self._counts.extend(keys.values())
        added = len(self._key_ids) - before
        if added:
            self._rows.append(row)
            self._repeats.append(added)
        if len(self._key_ids) >= BLOCK:
            self._spill()

    def finish(self) -> None:
        """Write the files and remove the temporary one."""
        self._spill()
        keys = sorted(self._ids)
        order = np.fromiter(map(self._ids.__getitem__, keys), np.int64, len(keys))
        positions = np.empty(len(keys), np.int64)
        positions[order] = np.arange(len(keys))
        self._ids.clear()
        _write_keys(self._folder, self._name, keys)
        del keys
        with _Sorted(self._folder, self._name, self._sizes[order], counts=self._counted) as target:
            self._file.seek(0)
            for size in self._blocks:
                key_ids = np.fromfile(self._file, np.uint32, size)
                rows = np.fromfile(self._file, ROW_TYPE, size)
                counts = np.fromfile(self._file, COUNT_TYPE, size) if self._counted else None
                target.put(*_by_key(positions[key_ids], rows, counts))
        self.close()

    def close(self) -> None:
        """Remove the temporary file. Closing twice is the same as once."""
        try:
            self._file.close()  # which fails where the disk is full
        finally:
            self._path.unlink(missing_ok=True)

    def _spill(self) -> None:
        if not self._key_ids:
            return
        key_ids = np.frombuffer(self._key_ids, np.uint32)
        self._sizes = np.concatenate([self._sizes, np.zeros(len(self._ids) - len(self._sizes), np.int64)])
        self._sizes += np.bincount(key_ids, minlength=len(self._ids))
        rows = np.repeat(np.frombuffer(self._rows, np.uint32), np.frombuffer(self._repeats, np.uint32))
        self._file.write(key_ids.tobytes())
        self._file.write(rows.astype(ROW_TYPE).tobytes())
        if self._counted:
            counts = np.minimum(np.frombuffer(self._counts, np.uint32), _MOST_COUNT)
            self._file.write(counts.astype(COUNT_TYPE).tobytes())
        self._blocks.append(len(key_ids))
        self._clear()

    def _clear(self) -> None:
        # "I" is an unsigned int, 32 bits wherever Linux runs.
        self._key_ids, self._rows, self._repeats, self._counts = array("I"), array("I"), array("I"), array("I")


def merge_postings(sources: Sequence[tuple[Postings, RowMap]], folder: Path, name: str, *, counts: bool) -> None:
    """Write the postings `name` of a merged segment into `folder`.

    Each source comes with INT64 [rows], the new row of each of its rows or -1; new rows ascend within a source and from source
    to source. A key that no row bears any more vanishes. Memory: about 30 bytes for each key of each source, and one block.
    """
    sizes = [_kept_sizes(source, row_map) for source, row_map in sources]
    places, merged = _merge_keys([source for source, _ in sources], sizes)
    _write_keys(folder, name, merged)
    total = np.zeros(len(merged), np.int64)
    for place, size in zip(places, sizes, strict=True):
        total[place[place >= 0]] += size[place >= 0]
    with _Sorted(folder, name, total, counts=counts) as target:
        for (source, row_map), place in zip(sources, places, strict=True):
            for start, stop, key_of in _entries(source):
                rows, positions = row_map[source.rows[start:stop]], place[key_of]
                kept = (rows >= 0) & (positions >= 0)
                numbers = source.counts[start:stop][kept] if source.counts is not None and counts else None
                target.put(positions[kept], rows[kept].astype(ROW_TYPE), numbers)


class _Ids(dict[bytes, int]):
    """Numbers keys in the order in which they are first met."""

    def __missing__(self, key: bytes) -> int:
        number = self[key] = len(self)
        return number


class _Sorted:
    """The output of a counting sort: entries are put where their key's rows begin, block after block.

    `sizes` INT64 [keys] says how many entries each key will get.
    """

    def __init__(self, folder: Path, name: str, sizes: Int64Array, *, counts: bool) -> None:
        starts = np.zeros(len(sizes) + 1, INT64)
        np.cumsum(sizes, out=starts[1:])
        np.save(folder / f"{name}.{STARTS_PART}", starts, allow_pickle=False)
        total = int(starts[-1])
        self._next = starts[:-1]
        self._rows = _create(folder / f"{name}.{ROWS_PART}", ROW_TYPE, total)
        self._counts = _create(folder / f"{name}.{COUNTS_PART}", COUNT_TYPE, total) if counts else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for output in (self._rows, self._counts):
            if isinstance(output, np.memmap):
                output.flush()

    def put(self, positions: Int64Array, rows: UInt32Array, counts: UInt16Array | None) -> None:
        """Put entries whose keys' positions ascend, and whose rows ascend within a key and come after those put before."""
        if len(positions) == 0:
            return
        begins = np.flatnonzero(np.concatenate([[True], positions[1:] != positions[:-1]]))
        keys, sizes = positions[begins], np.diff(np.append(begins, len(positions)))
        targets = np.repeat(self._next[keys] - begins, sizes) + np.arange(len(positions))
        self._rows[targets] = rows
        if self._counts is not None and counts is not None:
            self._counts[targets] = counts
        self._next[keys] += sizes


def _by_key(
    positions: Int64Array, rows: UInt32Array, counts: UInt16Array | None
) -> tuple[Int64Array, UInt32Array, UInt16Array | None]:
    """The entries in the order of their keys, rows in the order in which they were.

    Sorting key and place as one number takes 0.06 s for 2M entries, a stable argsort 0.25 s (NumPy 1.26, AVX-512).
    """
    mixed = (positions.astype(np.uint64) << _LOW_BITS) | np.arange(len(positions), dtype=np.uint64)
    mixed.sort()
    order = mixed.astype(np.uint32)  # the low bits
    return (mixed >> _LOW_BITS).astype(np.int64), rows[order], None if counts is None else counts[order]


def _entries(source: Postings) -> Iterator[tuple[int, int, Int64Array]]:
    """Blocks of a source's entries: first, end, and the position of each entry's key."""
    for start in range(0, len(source.rows), BLOCK):
        stop = min(start + BLOCK, len(source.rows))
        first = int(np.searchsorted(source.starts, start, side="right")) - 1
        end = int(np.searchsorted(source.starts, stop, side="left"))
        bounds = np.clip(source.starts[first : end + 1], start, stop)
        yield start, stop, np.repeat(np.arange(first, end), np.diff(bounds))


def _kept_sizes(source: Postings, row_map: RowMap) -> Int64Array:
    """INT64 [keys]: how many rows of each key are kept."""
    sizes = np.zeros(len(source), np.int64)
    for start, stop, key_of in _entries(source):
        kept = key_of[row_map[source.rows[start:stop]] >= 0]
        if len(kept):
            sizes[kept[0] : kept[-1] + 1] += np.bincount(kept - kept[0])
    return sizes


def _merge_keys(sources: Sequence[Postings], sizes: Sequence[Int64Array]) -> tuple[list[Int64Array], "_MergedKeys"]:
    """Where each source's keys come to lie among the merged ones, INT64 [keys] with -1 for none; and the merged keys."""
    places = [np.full(len(source), -1, np.int64) for source in sources]
    merged = _MergedKeys(sources)
    streams = [
        _kept_keys(number, source, size) for number, (source, size) in enumerate(zip(sources, sizes, strict=True))
    ]
    for _, group in groupby(heapq.merge(*streams), key=itemgetter(0)):
        place = len(merged)
        for _, number, position in group:
            places[number][position] = place
        merged.append(number, position)
    return places, merged


def _kept_keys(number: int, source: Postings, sizes: Int64Array) -> Iterator[tuple[bytes, int, int]]:
    for position in np.flatnonzero(sizes).tolist():
        yield source.key(position), number, position


class _MergedKeys:
    """The keys of a merge, each known by one place where it stands in a source: 12 bytes instead of the key."""

    def __init__(self, sources: Sequence[Postings]) -> None:
        self._sources = sources
        self._numbers, self._positions = array("I"), array("q")

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[bytes]:
        for number, position in zip(self._numbers, self._positions, strict=True):
            yield self._sources[number].key(position)

    def append(self, number: int, position: int) -> None:
        """Add the key at a position of the source with this number."""
        self._numbers.append(number)
        self._positions.append(position)


def _write_keys(folder: Path, name: str, keys: Sequence[bytes] | _MergedKeys) -> None:
    offsets = np.zeros(len(keys) + 1, INT64)
    with (folder / f"{name}.{KEYS_PART}").open("wb") as file:
        for i, key in enumerate(keys, start=1):
            assert key  # noqa: S101 - readers take offsets that do not rise for damage
            file.write(key)
            offsets[i] = len(key)
    np.cumsum(offsets, out=offsets)
    np.save(folder / f"{name}.{KEY_OFFSETS_PART}", offsets, allow_pickle=False)


def _create(path: Path, dtype: np.dtype[Any], size: int) -> npt.NDArray[Any]:
    """A new .npy file to be filled, mapped."""
    if size == 0:  # which can't be mapped, and needs no filling
        empty = np.empty(0, dtype)
        np.save(path, empty, allow_pickle=False)
        return empty
    output: np.memmap[Any, Any] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        path, mode="w+", dtype=dtype, shape=(size,)
    )
    with path.open("r+b") as file:
        # Writing to a mapped page for which the disk has no room would kill the process; this raises OSError.
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return output
