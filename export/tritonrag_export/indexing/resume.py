"""Embeddings of a build that was broken off, so that the next one does not make them again.

A file of records, appended window by window: UINT32 count, UINT32 crc32 of what follows, count digests of 16 bytes, FP32
[count, dim] vectors. A digest is of the embedded text, so that it does not matter what has changed between the two runs. A record
that is torn ends the file. The file's name bears the model's fingerprint and precision: no other model's vectors are ever taken.
"""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, Self

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.disk import disk_errors
from tritonrag_backends.index.format import RESUME
from tritonrag_backends.index.store import remove

_HEADER: Final = struct.Struct("<II")
_DIGEST_BYTES: Final = 16
_MOST_OF_A_RECORD: Final = 65_536


class EmbeddingJournal:
    """What was embedded before, and what is being embedded. Memory: 24 bytes a passage. Only with the write lock held."""

    def __init__(self, directory: Path, *, fingerprint: str, precision: str, dim: int) -> None:
        self._folder = directory / RESUME
        self._dim = dim
        self._path = self._folder / f"{fingerprint[:32]}-{precision}.bin"
        self._folder.mkdir(exist_ok=True)
        digests, places, end = self._read()
        order = np.argsort(digests[:, 0], kind="stable")
        self._digests, self._places = digests[order], places[order]
        # Unbuffered: what a full disk refuses must not be written again when the file is closed.
        self._file = self._path.open("r+b" if self._path.exists() else "w+b", buffering=0)
        self._file.truncate(end)
        self._file.seek(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def passages(self) -> int:
        """Passages that were embedded before."""
        return len(self._digests)

    def find(self, text: str) -> npt.NDArray[np.float32] | None:
        """The vector FP32 [dim] of a text that was embedded before."""
        first, second = _halves(_digest(text))[0]
        for place in range(int(np.searchsorted(self._digests[:, 0], first)), len(self._digests)):
            if self._digests[place, 0] != first:
                break
            if self._digests[place, 1] == second:
                self._file.seek(int(self._places[place]))
                vector = np.frombuffer(self._file.read(4 * self._dim), np.float32)
                self._file.seek(0, 2)
                return vector
        return None

    def append(self, texts: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        """Keep the vectors FP32 [n, dim] of these texts."""
        body = b"".join(map(_digest, texts)) + np.ascontiguousarray(vectors, "<f4").tobytes()
        left = memoryview(_HEADER.pack(len(texts), zlib.crc32(body)) + body)
        with disk_errors(self._folder.parent):
            while left:
                left = left[self._file.write(left) :]

    def done(self) -> None:
        """The build is published: nothing is kept."""
        self._file.close()
        remove(self._folder)

    def _read(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], int]:
        """Digests, the byte at which each vector begins, and where the last whole record ends."""
        digests: list[npt.NDArray[np.uint64]] = [np.empty((0, 2), np.uint64)]
        places: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        end = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                while (body := self._record(file.read(_HEADER.size), file)) is not None:
                    count = len(body) // (_DIGEST_BYTES + 4 * self._dim)
                    vectors_at = end + _HEADER.size + count * _DIGEST_BYTES
                    digests.append(_halves(body[: count * _DIGEST_BYTES]))
                    places.append(vectors_at + np.arange(count) * 4 * self._dim)
                    end += _HEADER.size + len(body)
        return np.concatenate(digests), np.concatenate(places), end

    def _record(self, header: bytes, file: BinaryIO) -> bytes | None:
        """The body of the record that begins here; None where it is torn or there is none."""
        if len(header) < _HEADER.size:
            return None
        count, crc = _HEADER.unpack(header)
        if not 0 < count <= _MOST_OF_A_RECORD:
            return None
        body = file.read(count * (_DIGEST_BYTES + 4 * self._dim))
        whole = len(body) == count * (_DIGEST_BYTES + 4 * self._dim) and zlib.crc32(body) == crc
        return body if whole else None


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()


def _halves(digests: bytes) -> npt.NDArray[np.uint64]:
    """Digests as numbers, UINT64 [n, 2]."""
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)
