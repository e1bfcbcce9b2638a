"""Writing an index: a segment streamed to the disk, then published as the next version in one atomic step."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.disk import DISK, Disk
from tritonrag_backends.index.format import (
    CURRENT,
    FILES,
    GRAPH_FILE,
    MANIFESTS,
    MOST_ROWS,
    OFFSETS_FILE,
    PASSAGES_FILE,
    SEGMENTS,
    STAGING,
    VECTORS_FILE,
    Counts,
    EmbeddingRecord,
    FileRecord,
    Manifest,
    SegmentRecord,
    segment_id,
)
from tritonrag_backends.index.kinds import KindChoice, choose, operating_point, write_graph
from tritonrag_backends.index.store import next_version
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError

_UNIT_TOLERANCE = 5e-3


class SegmentWriter:
    """Streams passages and vectors to `staging/<id>`; `finish` gives the segment its name. Only with the write lock held.

    Memory stays bounded: 8 bytes a passage, and for kind hnsw the graph (about dim + 150 bytes a passage) while it is built.
    A context manager: leaving it closes the files; what was not finished is swept by the next writer.
    """

    def __init__(self, directory: Path, *, number: int, dim: int, kind: KindChoice, disk: Disk = DISK) -> None:
        self._directory, self._number, self._dim, self._kind, self._disk = directory, number, dim, kind, disk
        self._folder = directory / STAGING / segment_id(number)
        disk.make_directory(self._folder)
        self._passages: BinaryIO = (self._folder / PASSAGES_FILE).open("wb")
        self._vectors: BinaryIO = (self._folder / VECTORS_FILE).open("wb")
        self._offsets = [0]
        self._write_header(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._passages.close()
        self._vectors.close()

    @property
    def rows(self) -> int:
        """Passages added so far."""
        return len(self._offsets) - 1

    def add(self, passages: Sequence[Passage], vectors: npt.NDArray[np.float32]) -> None:
        """Append passages and their vectors, FP32 [n, dim] of unit length. Raises BadRequestError, and then adds none of them."""
        self._check(passages, vectors)
        for data in [_encode(passage) for passage in passages]:
            self._passages.write(data)
            self._offsets.append(self._offsets[-1] + len(data))
        self._vectors.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())

    def finish(self) -> SegmentRecord:
        """Complete the files, build the graph if the kind has one, and move the segment to its place. At least one row."""
        if not self.rows:
            raise BadRequestError("the segment holds no passage; add some before finishing it")
        self._write_header(self.rows)
        self._passages.close()
        self._vectors.close()
        np.save(self._folder / OFFSETS_FILE, np.asarray(self._offsets, dtype="<i8"), allow_pickle=False)
        kind = choose(self._kind, self.rows)
        if kind == "hnsw":
            write_graph(np.load(self._folder / VECTORS_FILE, mmap_mode="r"), self._folder / GRAPH_FILE)
        files = {name: _record(self._folder / name) for name in sorted(FILES[kind])}
        for name in files:
            self._disk.sync(self._folder / name)
        self._disk.sync(self._folder)
        self._disk.make_directory(self._directory / SEGMENTS)
        self._disk.rename(self._folder, self._directory / SEGMENTS / self._folder.name)
        return SegmentRecord(id=self._folder.name, number=self._number, rows=self.rows, kind=kind, files=files)

    def _check(self, passages: Sequence[Passage], vectors: npt.NDArray[np.float32]) -> None:
        expected = (len(passages), self._dim)
        if vectors.dtype != np.float32 or vectors.shape != expected:
            raise BadRequestError(
                f"vectors are {vectors.dtype} of shape {list(vectors.shape)}; {len(passages)} passages need "
                f"float32 {list(expected)}"
            )
        if self.rows + len(passages) > MOST_ROWS:
            raise BadRequestError(f"a segment holds at most {MOST_ROWS} passages; begin another")
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
        if wrong.size:
            row = int(wrong[0])
            raise BadRequestError(
                f"the vector of the passage at {passages[row].uri}:{passages[row].start} has length {lengths[row]:.4g}; "
                "the encoder must return finite vectors of unit length"
            )

    def _write_header(self, rows: int) -> None:
        """The .npy header, written again at the end with the row count; NumPy pads it, so that its size stays the same."""
        header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (rows, self._dim)}
        self._vectors.seek(0)
        np.lib.format.write_array_header_1_0(self._vectors, header)  # type: ignore[no-untyped-call]
        self._vectors.seek(0, 2)


def publish(
    directory: Path,
    *,
    embedding: EmbeddingRecord,
    segments: Sequence[SegmentRecord],
    counts: Counts,
    disk: Disk = DISK,
) -> Manifest:
    """Make these segments, which lie finished in `directory`, the live version. Only with the write lock held.

    A crash at any point leaves the version live that was: CURRENT is replaced last, by a rename.
    """
    manifest = Manifest(
        index_version=next_version(directory),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        embedding=embedding,
        segments=tuple(segments),
        operating_point=operating_point(segments[0].kind),
        counts=counts,
    )
    disk.make_directory(directory / MANIFESTS)
    disk.make_directory(directory / STAGING)
    _write_atomically(directory, directory / MANIFESTS / manifest.file_name, manifest.encode(), disk)
    set_current(directory, manifest.file_name, disk=disk)
    return manifest


def set_current(directory: Path, name: str, *, disk: Disk = DISK) -> None:
    """Make the manifest of this file name live: the last step of publication, and the whole of a rollback."""
    disk.make_directory(directory / STAGING)
    _write_atomically(directory, directory / CURRENT, f"{name}\n".encode(), disk)


def _write_atomically(directory: Path, target: Path, data: bytes, disk: Disk) -> None:
    staged = directory / STAGING / target.name
    disk.write(staged, data)
    disk.rename(staged, target)


def _encode(passage: Passage) -> bytes:
    try:
        return passage.to_json()
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise BadRequestError(
            f"the passage at {passage.uri!a}:{passage.start} has no JSON form ({error}); remove what JSON can't hold from its "
            "text or metadata"
        ) from error


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
