"""Bytes of an index: on the host and on a GPU, by kind, number of passages and dimension."""

import re
from dataclasses import dataclass
from typing import Final

from tritonrag_backends.choices import Kind, VectorType
from tritonrag_backends.index.gpu.device import DeviceKind
from tritonrag_backends.index.gpu.shapes import building_bytes, index_bytes, shape_of
from tritonrag_backends.index.kinds import faiss_name, lists

# A passage's JSON beside its text: title, uri, span, braces. 7,474 passages of pydoc topics: 373 bytes of JSON for 253 of text.
WIRE_BYTES: Final = 120
# There a passage of 253 bytes holds 19.5 different words: one for each 13 bytes. A longer passage repeats more of its words.
_BYTES_A_WORD: Final = 13
_POSTING_BYTES: Final = 4 + 2  # row and count, index/postings.py
_ROW_FILES_BYTES: Final = 8 + 4 + 8  # offsets.npy, lengths.npy, and a row in the postings of document and tenant
_VALUE_BYTES: Final[dict[VectorType, int]] = {"fp32": 4, "fp16": 2, "int8": 1}
_ID_BYTES: Final = 8
_FAST_SCAN_BLOCK: Final = 32  # FAISS pads each list of a fast-scan index to that many vectors
# HNSW16: 32 neighbours of 4 bytes on the lowest level, 16 on each level above, where a sixteenth of the level below lives; an
# offset of 8 and a level of 4 bytes.
_HNSW_LINKS_BYTES: Final = 32 * 4 + 16 * 4 / 15 + 12


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBytes:
    """What an index takes on the host. All of it lies on the disk; what is searched should be in memory, or questions wait."""

    vectors: int
    ann: int
    words: int
    passages: int
    ann_memory: int

    @property
    def disk(self) -> int:
        """Bytes of the index directory, one version."""
        return self.vectors + self.ann + self.words + self.passages

    def searched(self, *, words: bool) -> int:
        """Bytes that a search touches: vectors, FAISS, and postings where words are searched."""
        return self.vectors + self.ann_memory + (self.words if words else 0)


def host_bytes(
    *, kind: Kind, rows: int, dims: int, vectors: VectorType, text_bytes: int, searching: int = 1
) -> HostBytes:
    """An index of `rows` passages with `text_bytes` of text each; `searching`: processes that search its FAISS file.

    FAISS copies ivf_pq into each of them; the other kinds are mapped and shared. 0: a GPU searches, the file stays on the disk.
    """
    ann = ann_bytes(kind, rows=rows, dims=dims)
    return HostBytes(
        vectors=stored_vector_bytes(vectors, rows=rows, dims=dims),
        ann=ann,
        words=rows * lexical_bytes_a_passage(text_bytes),
        passages=rows * (text_bytes + WIRE_BYTES + _ROW_FILES_BYTES),
        ann_memory=ann * (searching if kind == "ivf_pq" else min(searching, 1)),
    )


def stored_vector_bytes(vectors: VectorType, *, rows: int, dims: int) -> int:
    """vectors.npy, and scales.npy with int8: rows x (dims x bytes a value + a scale of 4 bytes). Source: index/format.py."""
    return rows * (dims * _VALUE_BYTES[vectors] + (4 if vectors == "int8" else 0))


def lexical_bytes_a_passage(text_bytes: int) -> int:
    """Postings of one passage: a row and a count for each different word."""
    return -(-text_bytes // _BYTES_A_WORD) * _POSTING_BYTES


def ann_bytes(kind: Kind, *, rows: int, dims: int) -> int:
    """ann.faiss. Held by a test to the files measured in docs/benchmarks/index-kinds-1m.md, within 1 %.

    hnsw: 8-bit vectors and links. ivf: codes, ids of 8 bytes, centroids in FP32; ivf_pq packs each list in blocks of 32, half of
    one of which is empty on average; ivf_rabitq has a bit a value and two factors.
    """
    if kind == "flat":
        return 0
    if kind in {"sq8", "hnsw"}:
        return round(rows * (dims + (_HNSW_LINKS_BYTES if kind == "hnsw" else 0)))
    number = lists(rows)
    centroids = number * dims * 4
    code = {"ivf_flat": dims * 4, "ivf_sq8": dims, "ivf_pq": _pq_code_bytes(rows, dims), "ivf_rabitq": dims / 8 + 8}[
        kind
    ]
    padding = number * _FAST_SCAN_BLOCK / 2 * code if kind == "ivf_pq" else 0
    return round(rows * (code + _ID_BYTES) + centroids + padding)


def _pq_code_bytes(rows: int, dims: int) -> float:
    """Half a byte for each sub-quantizer of the name that index/kinds.py gives FAISS."""
    match = re.search(r"PQ(\d+)x4fs", faiss_name("ivf_pq", rows=rows, dims=dims))
    return int(match[1]) / 2 if match else dims / 4


def gpu_index_bytes(kind: DeviceKind, *, rows: int, dims: int, fp16: bool) -> int:
    """The index in one GPU's memory, by the estimate that the retriever itself goes by (index/gpu/shapes.py).

    flat: rows x dims x (4, or 2 in FP16). ivf_flat: the same and ids of 8 bytes, half as much again for lists that grow,
    centroids in FP32. ivf_pq: codes of 8 bits likewise, and a codebook. cagra: vectors, and 64 edges of 4 bytes.
    """
    return index_bytes(shape_of(kind, rows=rows, dims=dims, fp16=fp16)) if rows else 0


def gpu_build_bytes(kind: DeviceKind, *, rows: int, dims: int, fp16: bool) -> int:
    """The most that it takes while it is built: cagra begins with twice the edges and a quantised copy."""
    return building_bytes(shape_of(kind, rows=rows, dims=dims, fp16=fp16)) if rows else 0
