"""Our device interface, used as the index uses it: a kind placed on a device, asked for candidates, re-scored, compared."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.format import OperatingPoint
from tritonrag_backends.index.gpu.device import Device, DeviceKind
from tritonrag_backends.index.gpu.exact import search_exactly
from tritonrag_backends.index.gpu.finder import Finder
from tritonrag_backends.index.gpu.placing import Placeable, Placing, PlacingOptions
from tritonrag_backends.index.kinds import default_point
from tritonrag_backends.index.vectors import Float32Array, Int64Array, StoredVectors
from tritonrag_client.errors import UnavailableError

K: Final = 10
SAME: Final = 1e-5  # scores so near are the last bits of two kernels
# The kind on the disk that each kind on a device stands for: its operating point is where the search for effort begins.
_ON_DISK: Final[dict[DeviceKind, Kind]] = {
    "flat": "flat",
    "ivf_flat": "ivf_flat",
    "ivf_pq": "ivf_pq",
    "cagra": "hnsw",
}


@dataclass(frozen=True, slots=False, kw_only=True, eq=False)
class Chosen:
    """Some rows of all, as a selection: `allowed` BOOL [rows], None: all."""

    rows: int
    allowed: npt.NDArray[np.bool_] | None = None

    @cached_property
    def count(self) -> int:
        """How many."""
        return self.rows if self.allowed is None else int(np.count_nonzero(self.allowed))

    @cached_property
    def bitmap(self) -> npt.NDArray[np.uint8] | None:
        """As FAISS takes them."""
        return None if self.allowed is None else np.packbits(self.allowed, bitorder="little")


def place(
    device: Device, vectors: StoredVectors, kind: DeviceKind, tell: Callable[[str], None], *, target: float
) -> Finder:
    """The vectors as one segment on the device, its effort measured to reach recall@10 `target`.

    Raises UnavailableError with the reason where it has no room or FAISS fails.
    """
    on_disk = _ON_DISK[kind]
    segment = Placeable(number=1, kind=on_disk, point=_point(on_disk), vectors=vectors)
    placing = Placing([device], PlacingOptions(kind=kind), tell=tell)
    try:
        (placed,) = placing.place([segment], target=target)
    finally:
        placing.close()
    if placed.finder is None:
        raise UnavailableError(placed.gave_up or f"{vectors.rows} vectors are too few to be placed")
    return placed.finder


def _point(kind: Kind) -> OperatingPoint:
    """From the least effort on: what an index on the disk was tuned to need is not known here."""
    point = default_point(kind)
    return OperatingPoint(effort=min(point.effort, 8), rescore=point.rescore, recall_at_10=None, queries=0)


def best_rows(finder: Finder, vectors: StoredVectors, queries: Float32Array, chosen: Chosen) -> Int64Array:
    """The 10 best chosen rows INT64 [n, 10] as a segment would give them; -1 where the device fell short or could not be sure.

    A segment then asks the CPU; here it counts as not found.
    """
    if finder.exact:
        best = search_exactly(finder, vectors, queries, K, chosen)
        return np.where(best.certain[:, None], best.rows, -1)
    proposed = finder.find(queries, min(K * finder.point.rescore + 8, chosen.count), chosen)
    if proposed is None:
        raise UnavailableError(finder.trouble)
    scores = vectors.scores(queries, proposed.rows)
    order = np.lexsort((proposed.rows, -scores), axis=1)[:, :K]
    return np.take_along_axis(proposed.rows, order, axis=1)


def recall(vectors: StoredVectors, queries: Float32Array, rows: Int64Array, kth: Float32Array) -> float:
    """The share of the 10 best that are among rows INT64 [n, c]; a row that is as good as the 10th best, `kth` FP32 [n], is one."""
    hits = 0
    for query, found, least in zip(queries, rows, kth, strict=True):
        named = np.unique(found[found >= 0])
        hits += min(K, int(np.count_nonzero(vectors.take(named) @ query >= least - SAME)))
    return hits / (K * len(queries))
