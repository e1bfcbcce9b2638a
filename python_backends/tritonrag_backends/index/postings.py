"""Postings: sorted byte keys, each with the rows that bear it. On the disk, and mapped from there.

    <name>.keys.bin          the keys one after the other, in ascending order of their bytes, each once and none empty
    <name>.key_offsets.npy   INT64 [keys + 1]: key i is keys.bin[key_offsets[i]:key_offsets[i + 1]]
    <name>.starts.npy        INT64 [keys + 1]: key i is borne by rows[starts[i]:starts[i + 1]], at least one
    <name>.rows.npy          UINT32 [total]: rows, ascending within a key
    <name>.counts.npy        UINT16 [total]: how often the row bears the key, at least once; 65,535 stands for more. Not all have it

Numbers are little endian. A range of keys is one slice of rows. Writing them: `postings_writer.py`.
"""

import mmap
from bisect import bisect_left
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.arrays import damaged, map_array, map_bytes
from tritonrag_backends.index.format import COUNTS_PART, POSTINGS_PARTS

Int64Array = npt.NDArray[np.int64]
UInt32Array = npt.NDArray[np.uint32]
UInt16Array = npt.NDArray[np.uint16]

KEYS_PART, KEY_OFFSETS_PART, STARTS_PART, ROWS_PART = POSTINGS_PARTS
INT64: Final = np.dtype("<i8")
ROW_TYPE: Final = np.dtype("<u4")
COUNT_TYPE: Final = np.dtype("<u2")
_FENCE: Final = 256  # every so-manyth key is held in memory, which halves a look-up: 3.4 us among 2.7M keys


class _Keys:
    """The mapped keys, as `bisect` takes them. A memoryview of the offsets, because it gives Python's own numbers at once."""

    def __init__(self, data: mmap.mmap | bytes, offsets: Int64Array) -> None:
        self._data, self._offsets = data, offsets.data

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, position: int) -> bytes:
        return self._data[self._offsets[position] : self._offsets[position + 1]]


class Postings:
    """Postings of one segment, mapped: all but a few keys takes no memory of its own. Read-only and safe for many threads."""

    def __init__(self, keys: _Keys, starts: Int64Array, rows: UInt32Array, counts: UInt16Array | None) -> None:
        self.starts: Final = starts
        self.rows: Final = rows
        self.counts: Final = counts
        self._keys, self._starts = keys, starts.data
        self._fence = [keys[i] for i in range(0, len(keys), _FENCE)]

    @classmethod
    def open(cls, folder: Path, name: str, *, rows: int, counts: bool) -> "Postings":
        """Map files whose sha256 was checked; `rows` is how many the segment has.

        Raises InternalError that names the file where types, sizes and offsets do not fit one another. The rows themselves are
        not read, which would take as long as reading the file: NumPy refuses one that is out of bounds when it is used.
        """
        offsets = _map_rising(folder / f"{name}.{KEY_OFFSETS_PART}")
        starts = _map_rising(folder / f"{name}.{STARTS_PART}")
        if len(starts) != len(offsets):
            raise damaged(folder / f"{name}.{STARTS_PART}", f"it is for {len(starts) - 1} keys of {len(offsets) - 1}")
        total = int(starts[-1])
        if total > rows * (len(starts) - 1):
            raise damaged(folder / f"{name}.{STARTS_PART}", f"{total} entries are more than {rows} rows can have")
        keys = _map_keys(folder / f"{name}.{KEYS_PART}", int(offsets[-1]))
        return cls(
            _Keys(keys, offsets),
            starts,
            map_array(folder / f"{name}.{ROWS_PART}", ROW_TYPE, (total,)),
            map_array(folder / f"{name}.{COUNTS_PART}", COUNT_TYPE, (total,)) if counts else None,
        )

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, position: int) -> bytes:
        """The key at this position, from 0."""
        return self._keys[position]

    def find(self, key: bytes) -> int | None:
        """The position of a key; None where no row bears it."""
        position = self._first_from(key)
        return position if position < len(self._keys) and self._keys[position] == key else None

    def span(self, low: bytes, high: bytes) -> range:
        """The positions of all keys with low <= key < high."""
        first = self._first_from(low)
        return range(first, max(first, self._first_from(high)))

    def size_of(self, position: int) -> int:
        """How many rows bear the key."""
        return self._starts[position + 1] - self._starts[position]

    def rows_of(self, position: int) -> UInt32Array:
        """The rows that bear the key, UINT32 [n], ascending: a view."""
        return self.rows[self._starts[position] : self._starts[position + 1]]

    def counts_of(self, position: int) -> UInt16Array:
        """How often each of `rows_of` bears the key, UINT16 [n]: a view. Only where postings have counts."""
        assert self.counts is not None  # noqa: S101 - the caller opened them with counts
        return self.counts[self._starts[position] : self._starts[position + 1]]

    def rows_between(self, positions: range) -> UInt32Array:
        """The rows of consecutive keys, key after key, UINT32 [n]: a view. A row that bears several is there several times."""
        return self.rows[self._starts[positions.start] : self._starts[positions.stop]]

    def _first_from(self, key: bytes) -> int:
        """The position of the first key that is not less."""
        block = bisect_left(self._fence, key)
        if block == 0:
            return 0
        return bisect_left(self._keys, key, (block - 1) * _FENCE, min(block * _FENCE, len(self._keys)))


def _map_rising(path: Path) -> Int64Array:
    """Map INT64 [n + 1] that rises from 0 by at least 1 each time."""
    array = map_array(path, INT64, _shape_of(path))
    if array.ndim != 1 or len(array) == 0 or array[0] != 0 or bool(np.any(array[1:] <= array[:-1])):
        raise damaged(path, "its offsets do not rise from 0")
    return array


def _shape_of(path: Path) -> tuple[int, ...]:
    """The shape that the file's header tells: how many keys there are stands nowhere else."""
    try:
        return tuple(np.lib.format.open_memmap(path, mode="r").shape)  # type: ignore[no-untyped-call]
    except (ValueError, EOFError, OSError) as error:
        raise damaged(path, "it is no .npy file") from error


def _map_keys(path: Path, size: int) -> mmap.mmap | bytes:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise damaged(path, "it can't be read") from error
    if found != size:
        raise damaged(path, f"it has {found} bytes where its offsets end at {size}")
    return map_bytes(path) if size else b""
