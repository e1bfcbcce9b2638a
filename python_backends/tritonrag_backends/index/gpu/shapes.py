"""Which index a segment gets on a device, what memory that takes, and which rows go to which device: arithmetic alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.gpu.device import Abilities, DeviceKind, DeviceKindChoice, Shape
from tritonrag_backends.index.kinds import lists

# With fewer rows k-means of 256 centroids and a graph of degree 128 have too little to learn from, and comparing with every row
# takes a GPU microseconds.
LEAST_TRAINED_ROWS: Final = 1_000
# Where FAISS's own kernels end (faiss/gpu/impl/IVFPQ.cu, isSupportedPQCodeLength): bytes a vector. More than 48 need lookup tables
# in FP16.
_PQ_BYTES: Final = (96, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)
_CENTROIDS: Final = 256
_ID_BYTES: Final = 8
_LISTS_GROW: Final = (
    1.5  # FAISS lets a full inverted list grow to the next power of two: 1.5 times its rows on the average
)
CAGRA_DEGREE: Final = 64
CAGRA_BUILD_DEGREE: Final = 128
_NODE_BYTES: Final = 4
MEASURED_ROWS: Final = 262_144  # compared at a time where recall is measured: 400 MB at 384 dimensions
_CUT_AT_ROWS: Final = 8  # a selector's byte
_ALIKE: Final[Mapping[Kind, DeviceKind]] = {
    "flat": "flat",
    "sq8": "flat",
    "hnsw": "cagra",
    "ivf_flat": "ivf_flat",
    "ivf_sq8": "ivf_flat",
    "ivf_pq": "ivf_pq",
    "ivf_rabitq": "ivf_pq",
}


def device_kind(choice: DeviceKindChoice, *, kind: Kind, rows: int, abilities: Abilities) -> DeviceKind:
    """The kind on the device of a segment that is `kind` on the disk; `auto` takes what is nearest to it."""
    chosen = _ALIKE[kind] if choice == "auto" else choice
    if rows < LEAST_TRAINED_ROWS:
        return "flat"
    return "ivf_flat" if chosen == "cagra" and not abilities.cagra else chosen


def shape_of(kind: DeviceKind, *, rows: int, dims: int, fp16: bool) -> Shape:
    """The shape of an index of this kind over so many vectors."""
    return Shape(
        kind=kind,
        rows=rows,
        dims=dims,
        fp16=fp16,
        lists=lists(rows) if kind.startswith("ivf_") else 0,
        sub_quantizers=sub_quantizers(dims) if kind == "ivf_pq" else 0,
    )


def sub_quantizers(dims: int) -> int:
    """The most that FAISS's kernels know, of at least two values each where the dimension allows; each makes one byte."""
    return next(
        count
        for count in _PQ_BYTES
        if dims % count == 0 and (dims // count >= 2 or count == 1)  # noqa: PLR2004
    )


def index_bytes(shape: Shape) -> int:
    """Device memory that the finished index holds."""
    vector_bytes = shape.dims * (2 if shape.fp16 else 4)
    centroids = 4 * shape.dims * shape.lists
    if shape.kind == "flat":
        return shape.rows * vector_bytes
    if shape.kind == "cagra":
        return shape.rows * (vector_bytes + _NODE_BYTES * CAGRA_DEGREE)
    if shape.kind == "ivf_flat":
        return int(_LISTS_GROW * shape.rows * (vector_bytes + _ID_BYTES)) + centroids
    codebook = 4 * shape.dims * _CENTROIDS
    return int(_LISTS_GROW * shape.rows * (shape.sub_quantizers + _ID_BYTES)) + centroids + codebook


def building_bytes(shape: Shape) -> int:
    """Device memory that is needed while it is built, the finished index included.

    A graph is made from one of twice the degree and from a quantised copy, taken at a byte a value; that is gone when its recall is
    measured against rows in FP32, as that of the ivf kinds is.
    """
    if shape.kind == "flat":
        return index_bytes(shape)
    graph = shape.rows * (_NODE_BYTES * CAGRA_BUILD_DEGREE + shape.dims) if shape.kind == "cagra" else 0
    return index_bytes(shape) + max(graph, 4 * shape.dims * min(shape.rows, MEASURED_ROWS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Rows `start` to `stop` of a segment for the device at this place; `start` is a multiple of 8."""

    device: int
    start: int
    stop: int


def deal(sizes: Sequence[tuple[int, int]], loads: Sequence[int]) -> list[list[Share]]:
    """Deal segments, each (rows, bytes), out to devices that hold `loads` bytes already: for each segment its shares, by row.

    Largest first, each to the device with the least. A segment larger than a device's fair share is cut into equal parts, which go
    to as many devices, so that all of them search it at once.
    """
    held = list(loads)
    fair = max(1, (sum(loads) + sum(size for _, size in sizes)) / len(loads))
    dealt: list[list[Share]] = [[] for _ in sizes]
    for place in sorted(range(len(sizes)), key=lambda i: -sizes[i][1]):
        rows, size = sizes[place]
        cuts = _cuts(rows, min(len(loads), -int(-size // fair)))
        free = sorted(range(len(held)), key=lambda device: (held[device], device))
        for device, (start, stop) in zip(free, cuts, strict=False):
            dealt[place].append(Share(device=device, start=start, stop=stop))
            held[device] += size * (stop - start) // max(rows, 1)
    return dealt


def _cuts(rows: int, parts: int) -> list[tuple[int, int]]:
    """`rows` in at most as many parts, about equal, each but the last a multiple of 8."""
    step = max(-(-rows // max(parts, 1)), 1)
    step = -(-step // _CUT_AT_ROWS) * _CUT_AT_ROWS
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]
