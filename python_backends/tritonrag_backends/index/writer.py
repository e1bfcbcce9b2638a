"""Writing a segment: passages and vectors streamed to `staging`, then completed with what searching needs."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.analysis import Analyzer
from tritonrag_backends.index.fields import document_key, metadata_keys, tenant_key
from tritonrag_backends.index.format import (
    FIELDS,
    MOST_ROWS,
    OFFSETS_FILE,
    PASSAGES_FILE,
    SCALES_FILE,
    VECTORS_FILE,
    IndexOptions,
)
from tritonrag_backends.index.lexical import LexicalWriter
from tritonrag_backends.index.postings_writer import PostingsWriter
from tritonrag_backends.index.vectors import BLOCK_ROWS, DTYPES, Float32Array, VectorSpace, encode_vectors
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError

UNIT_TOLERANCE: Final = 5e-3
RAW_FILE: Final = (
    "raw.npy"  # the model's own vectors while a segment is written whose stored ones are shorter or coarser
)

Progress = Callable[[str, int], None]  # (what is being done, rows done)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPassage:
    """A passage with the document that it belongs to (unique per tenant) and that document's tenant; None: everybody's."""

    document: str
    tenant: str | None
    passage: Passage


class SegmentWriter:
    """Streams passages and vectors FP32 [n, dim] into a folder in `staging`. Only with the lock held that the folder belongs to.

    Memory: 8 bytes a passage, and about 150 a document and a distinct word. A context manager: leaving it closes the files.
    """

    def __init__(self, folder: Path, *, dim: int, options: IndexOptions) -> None:
        self.folder: Final = folder
        self._dim = dim
        self._declared = None if options.fields is None else frozenset(options.fields)
        folder.mkdir(parents=True)
        self._passages: BinaryIO = (folder / PASSAGES_FILE).open("wb")
        self._vectors = ArrayFile(folder / RAW_FILE, np.dtype("<f4"), dim)
        self._offsets = [0]
        self._fields = PostingsWriter(folder, FIELDS, counts=False)
        self._lexical = LexicalWriter(folder, Analyzer(options.language))
        self._last: tuple[str, str | None] | None = None
        self._names: set[str] = set()
        self._unfilterable: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Where something is left to be written, the segment was not finished: a full disk's refusal changes nothing any more.
        for close in (self._passages.close, self._vectors.close, self._fields.close, self._lexical.close):
            with suppress(OSError):
                close()

    @property
    def rows(self) -> int:
        """Passages added so far."""
        return len(self._offsets) - 1

    @property
    def last_document(self) -> tuple[str, str | None] | None:
        """(id, tenant) of the document whose passage was added last."""
        return self._last

    @property
    def fields(self) -> tuple[str, ...]:
        """Metadata keys that can be filtered by, so far."""
        return tuple(sorted(self._names - self._unfilterable))

    @property
    def unfilterable(self) -> tuple[str, ...]:
        """Metadata keys that can't, so far."""
        return tuple(sorted(self._unfilterable))

    def add(self, new: Sequence[NewPassage], vectors: Float32Array) -> None:
        """Append passages and their vectors, FP32 [n, dim] of unit length. Raises BadRequestError, and then adds none of them."""
        self._check(new, vectors)
        rows = [self._prepared(one) for one in new]
        for row, (data, keys) in enumerate(rows, start=self.rows):
            self._passages.write(data)
            self._fields.add(row, keys)
            self._offsets.append(self._offsets[-1] + len(data))
        for row, one in enumerate(new, start=self.rows - len(new)):
            self._lexical.add(row, f"{one.passage.title}\n{one.passage.text}")
        self._vectors.append(vectors)
        if new:
            self._last = new[-1].document, new[-1].tenant

    def finish(self) -> None:
        """Complete the files, but for the stored vectors (`store_vectors`). At least one row."""
        if not self.rows:
            raise BadRequestError("the segment holds no passage; add some before finishing it")
        self._passages.close()
        self._vectors.close()
        np.save(self.folder / OFFSETS_FILE, np.asarray(self._offsets, dtype="<i8"), allow_pickle=False)
        self._fields.finish()
        self._lexical.finish()

    def _prepared(self, new: NewPassage) -> tuple[bytes, set[bytes]]:
        keys, fields, unfilterable = metadata_keys(new.passage.metadata, self._declared)
        keys.add(document_key(new.document, new.tenant))
        if new.tenant is not None:
            keys.add(tenant_key(new.tenant))
        data = encode_passage(new.passage)
        self._names |= fields
        self._unfilterable |= unfilterable
        return data, keys

    def _check(self, new: Sequence[NewPassage], vectors: Float32Array) -> None:
        expected = (len(new), self._dim)
        if vectors.dtype != np.float32 or vectors.shape != expected:
            raise BadRequestError(
                f"vectors are {vectors.dtype} of shape {list(vectors.shape)}; {len(new)} passages need "
                f"float32 {list(expected)}"
            )
        if self.rows + len(new) > MOST_ROWS:
            raise BadRequestError(f"a segment holds at most {MOST_ROWS} passages; begin another")
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
        if wrong.size:
            passage = new[int(wrong[0])].passage
            raise BadRequestError(
                f"the vector of the passage at {passage.uri}:{passage.start} has length {lengths[wrong[0]]:.4g}; "
                "vectors must be finite and of unit length"
            )


class ArrayFile:
    """A .npy file [rows, dim] that grows; its header is written again at the end with the row count."""

    def __init__(self, path: Path, dtype: np.dtype[Any], dim: int | None) -> None:
        self._file: BinaryIO = path.open("wb")
        self._dtype, self._dim, self.rows = dtype, dim, 0
        self._write_header()

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Append rows [n, dim]."""
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self.rows += len(rows)

    def close(self) -> None:
        """Write the final header; closing twice is the same as once."""
        if not self._file.closed:
            self._file.seek(0)
            self._write_header()
            self._file.close()

    def _write_header(self) -> None:
        # NumPy pads the header, so that its size stays the same whatever the number of rows.
        shape = (self.rows,) if self._dim is None else (self.rows, self._dim)
        header: dict[str, Any] = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)  # type: ignore[no-untyped-call]


def store_vectors(folder: Path, space: VectorSpace) -> None:
    """Write the stored vectors from the model's own in `raw.npy`, block by block; that is left, unless the two are the same."""
    record = space.record
    if record.type == "fp32" and record.reduction == "none":
        (folder / RAW_FILE).rename(folder / VECTORS_FILE)
        return
    raw = np.load(folder / RAW_FILE, mmap_mode="r", allow_pickle=False)
    vectors = ArrayFile(folder / VECTORS_FILE, DTYPES[record.type], record.dims)
    scales = ArrayFile(folder / SCALES_FILE, np.dtype("<f4"), None) if record.type == "int8" else None
    for start in range(0, len(raw), BLOCK_ROWS):
        stored, factors = encode_vectors(space.reduce_many(np.asarray(raw[start : start + BLOCK_ROWS])), record.type)
        vectors.append(stored)
        if scales is not None and factors is not None:
            scales.append(factors)
    vectors.close()
    if scales is not None:
        scales.close()


def encode_passage(passage: Passage) -> bytes:
    """The passage as it lies on the disk. Raises BadRequestError where JSON can't hold it."""
    try:
        return passage.to_json()
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise BadRequestError(
            f"the passage at {passage.uri!a}:{passage.start} has no JSON form ({error}); remove what JSON can't hold from its "
            "text or metadata"
        ) from error
