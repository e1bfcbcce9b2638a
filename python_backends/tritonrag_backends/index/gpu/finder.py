"""A segment on devices: asked for rows near a question, which are held to what is allowed before anybody else sees them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.ann import Bitmap, Float32Array, Int64Array, are_set, count_set
from tritonrag_backends.index.format import EXACT, OperatingPoint
from tritonrag_backends.index.gpu.device import (
    DEVICE_FAILURES,
    FP16_ERROR,
    FP32_ERROR,
    DeviceIndex,
    DeviceKind,
    Scored,
    Shape,
)
from tritonrag_backends.index.kinds import probes_for_share

# Fetched beyond what the share of allowed rows calls for, where a device ignores which they are.
_MORE: Final = 1.25
_FEW_MORE: Final = 8
# So few allowed rows are compared on the CPU in less time than a GPU takes to be asked.
_FEW_ROWS: Final = 1_000
# A graph of which fewer rows are allowed is walked in vain.
_GRAPH_SHARE: Final = 0.1
# One block of threads keeps no more (cuVS), and needs a multiple of 32.
MOST_WALKED: Final = 512
_WALKED_BY: Final = 32
_WIDER: Final = 0.75  # as in ann.py

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


class Wanted(Protocol):
    """What is needed of a Selection."""

    @property
    def rows(self) -> int: ...  # noqa: D102 - as in Selection
    @property
    def count(self) -> int: ...  # noqa: D102
    @property
    def bitmap(self) -> Bitmap | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """An index on a device over rows from `start`, a multiple of 8. `filters`: whether it was seen to honour a selector."""

    device: str
    index: DeviceIndex
    shape: Shape
    start: int
    filters: bool
    most: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposed:
    """Candidates for n questions, every one of them allowed, none twice.

    `rows` INT64 [n, c], -1 for none, and the device's `scores` FP32 [n, c] for them, in no order. `bounds` FP32 [n]: a device that
    compares with every row gave no other allowed row a greater score; -inf: there is no other; inf: it can't be said. `caught`
    BOOL [n]: a device that filters returned a row that is not allowed; it is taken at its word for none of that question's.
    """

    rows: Int64Array
    scores: Float32Array
    bounds: Float32Array
    caught: npt.NDArray[np.bool_]


class Finder:
    """A segment's parts, on one device or several. Safe for many threads, as its indexes are."""

    def __init__(self, parts: Sequence[Part], *, point: OperatingPoint = EXACT, run: Mapper = map) -> None:
        """`point` is how hard they are searched; flat parts need none. `run` asks all parts at once, where there are several."""
        self.parts: Final = tuple(parts)
        self.point: Final = point
        self.kind: Final[DeviceKind] = parts[0].shape.kind
        self.exact: Final = self.kind == "flat"
        self.error: Final = FP16_ERROR if any(part.shape.fp16 for part in parts) else FP32_ERROR
        self.filters: Final = all(part.filters for part in parts)
        self.most: Final = min(MOST_WALKED if self.kind == "cagra" else 2**31, *(part.most for part in parts))
        self.trouble = ""
        self._run: Mapper = run if len(self.parts) > 1 else map

    def at(self, point: OperatingPoint) -> "Finder":
        """The same parts, searched so hard."""
        return Finder(self.parts, point=point, run=self._run)

    def suits(self, wanted: int, selection: Wanted) -> bool:
        """Whether to ask the devices for so many rows of this selection; else the CPU is the better way."""
        if wanted > self.most or (selection.count <= _FEW_ROWS and selection.count < selection.rows):
            return False
        return self.kind != "cagra" or selection.count >= _GRAPH_SHARE * selection.rows

    def find(self, queries: Float32Array, wanted: int, selection: Wanted) -> Proposed | None:
        """At least `wanted` candidates a part for each of FP32 [n, dims], where it has as many that are allowed.

        None where a device failed: then `trouble` says which and why, until one of the next searches succeeds.
        """
        ask = partial(self._ask, np.ascontiguousarray(queries), wanted, selection)
        try:
            found = list(self._run(ask, self.parts))
        except DEVICE_FAILURES as error:
            self.trouble = f"{', '.join(part.device for part in self.parts)} failed to search it: {first_line(error)}"
            return None
        self.trouble = ""
        return _joined(found)

    def close(self) -> None:
        """Give back what the parts hold, now rather than when the last reader is gone."""
        for part in self.parts:
            part.index.close()

    def _ask(self, queries: Float32Array, wanted: int, selection: Wanted, part: Part) -> Proposed:
        allowed, count = _allowed_in(part, selection)
        if count == 0:
            return _nothing(len(queries))
        effort = self._effort(part, count / part.shape.rows)
        if allowed is None or part.filters:
            fetched = min(wanted, count)
            found = part.index.search(queries, fetched, effort=effort, allowed=allowed)
        else:
            fetched = math.ceil(_MORE * wanted * part.shape.rows / count) + _FEW_MORE
            fetched = min(fetched, part.shape.rows, self.most)
            found = part.index.search(queries, fetched, effort=effort, allowed=None)
        return _verified(part, found, allowed, count)

    def _effort(self, part: Part, share: float) -> int:
        """What finds as much among fewer allowed rows as the point's effort among all."""
        if self.kind == "cagra":
            walked = float(self.point.effort * share**-_WIDER)
            return min(MOST_WALKED, math.ceil(walked / _WALKED_BY) * _WALKED_BY)
        if not part.shape.lists:
            return 0
        probes = self.point.effort * probes_for_share(share)
        return max(1, min(math.ceil(probes), part.shape.lists, part.most))


def honours_selector(index: DeviceIndex, shape: Shape, sample: Float32Array) -> bool:
    """Whether the index finds allowed rows alone, tried on every other row: FAISS's documentation is not asked, the index is."""
    allowed = np.full(-(-shape.rows // 8), 0b01010101, np.uint8)
    count = min(_FEW_MORE, shape.rows // 2)
    if count == 0:
        return False
    effort = MOST_WALKED // 8 if shape.kind == "cagra" else shape.lists
    _, rows = index.search(sample, count, effort=min(effort, MOST_WALKED), allowed=allowed)
    found = (rows >= 0) & (rows < shape.rows)
    return bool(found.any() and (rows[found] % 2 == 0).all())


def _allowed_in(part: Part, selection: Wanted) -> tuple[Bitmap | None, int]:
    """The allowed rows of a part, and how many these are; None: all."""
    bitmap = selection.bitmap
    if bitmap is None:
        return None, part.shape.rows
    own = np.ascontiguousarray(bitmap[part.start // 8 : -(-(part.start + part.shape.rows) // 8)])
    return own, count_set(own)


def _verified(part: Part, found: Scored, allowed: Bitmap | None, count: int) -> Proposed:
    """What a device returned, less what it must not have returned; where that is anything, its bound counts for nothing."""
    scores, rows = found
    there = (rows >= 0) & (rows < part.shape.rows) & ~np.isnan(scores)
    named = np.where(there, rows, -1)
    passing = there if allowed is None else are_set(allowed, named)
    again = _repeated(named)
    strange = (there & ~passing).any(axis=1) if part.filters else np.zeros(len(rows), np.bool_)
    kept = passing & ~again
    odd = (~there | again).any(axis=1) | strange
    bounds = np.where(odd, np.inf, scores.min(axis=1, initial=np.inf)).astype(np.float32)
    bounds[np.count_nonzero(kept, axis=1) == count] = -np.inf
    return Proposed(
        rows=np.where(kept, rows + part.start, -1),
        scores=np.where(kept, scores, -np.inf).astype(np.float32),
        bounds=bounds,
        caught=strange,
    )


def _joined(found: Sequence[Proposed]) -> Proposed:
    """What all parts of a segment proposed."""
    caught = np.any([one.caught for one in found], axis=0)
    return Proposed(
        rows=np.where(caught[:, None], -1, np.concatenate([one.rows for one in found], axis=1)),
        scores=np.concatenate([one.scores for one in found], axis=1),
        bounds=np.where(caught, np.float32(np.inf), np.max([one.bounds for one in found], axis=0)),
        caught=caught,
    )


def _repeated(rows: Int64Array) -> npt.NDArray[np.bool_]:
    """Which rows of each line stand in it before, BOOL [n, c]; a graph may return one twice."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    again = np.zeros(rows.shape, np.bool_)
    again[:, 1:] = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    repeated = np.empty_like(again)
    np.put_along_axis(repeated, order, again, axis=1)
    return repeated


def _nothing(queries: int) -> Proposed:
    return Proposed(
        rows=np.empty((queries, 0), np.int64),
        scores=np.empty((queries, 0), np.float32),
        bounds=np.full(queries, -np.inf, np.float32),
        caught=np.zeros(queries, np.bool_),
    )


def first_line(error: BaseException) -> str:
    """What FAISS says, without the place in its source."""
    said = str(error).strip().split("\n", 1)[0]
    return said.rsplit("Error: ", 1)[-1][:200] or type(error).__name__
