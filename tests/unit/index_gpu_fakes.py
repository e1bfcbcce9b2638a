"""Pretended GPUs for the index's tests: those that filter, ignore selectors, lie, fail, or are less exact than they should be."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritonrag_backends.index.gpu.device import Abilities, DeviceIndex, Scored, Shape
from tritonrag_backends.index.gpu.placing import Placing, PlacingOptions
from tritonrag_backends.index.gpu.stand_in import CpuDevice, CpuIndex

WITH_CUVS = Abilities(cagra=True, filters=True, most=16_384)
WITHOUT_CUVS = Abilities(cagra=False, filters=False, most=2_048)
Search = Callable[..., Scored]
Twist = Callable[[Search, dict[str, Any]], Scored]


class TwistedIndex(CpuIndex):
    """An index whose searches pass through `twist`."""

    twist: Twist

    def search(self, queries: np.ndarray, count: int, *, effort: int, allowed: Any) -> Scored:
        asked = {"queries": queries, "count": count, "effort": effort, "allowed": allowed, "rows": self._shape.rows}

        def plainly(**changed: Any) -> Scored:
            options = {**asked, **changed}
            del options["rows"]
            return super(TwistedIndex, self).search(options.pop("queries"), options.pop("count"), **options)

        return self.twist(plainly, asked)


class TwistedDevice(CpuDevice):
    """A device of such indexes."""

    def __init__(self, name: str, twist: Twist, **options: Any) -> None:
        super().__init__(name, **options)
        self.twist = twist

    def build(self, shape: Shape, vectors: Any) -> DeviceIndex:
        index = TwistedIndex(shape, vectors)
        index.twist = self.twist
        self._held.add(index)
        return index


def ignoring(search: Search, asked: dict[str, Any]) -> Scored:
    """FAISS without cuVS: the selector is not looked at."""
    del asked
    return search(allowed=None)


@dataclass
class Lying:
    """Filters as long as it is tried, then returns rows that are not allowed, not there, there twice, or scored NaN."""

    honest_searches: int = 10**9
    seed: int = 3

    def __call__(self, search: Search, asked: dict[str, Any]) -> Scored:
        scores, rows = search()
        if asked["allowed"] is not None and self.honest_searches > 0 and len(asked["queries"]) <= 4:
            self.honest_searches -= 1
            return scores, rows
        random = np.random.default_rng(self.seed)
        self.seed += 1
        scores, rows = scores.copy(), rows.copy()
        for query in range(0, len(rows), 2):
            for _ in range(3):
                place = random.integers(rows.shape[1])
                rows[query, place] = random.choice([0, rows[query, 0], asked["rows"], 2**40, -7, asked["rows"] - 1])
                scores[query, place] = random.choice([np.nan, np.inf, -np.inf, 0.5, scores[query, place]])
        return scores, rows


class Failing:
    """Searches well, and from the time on that it is told to fail, does as FAISS does without memory."""

    def __init__(self) -> None:
        self.fails = False

    def __call__(self, search: Search, asked: dict[str, Any]) -> Scored:
        del asked
        if self.fails:
            raise RuntimeError(
                "Error in allocMemory at StandardGpuResources.cpp:576: Error: 'err == cudaSuccess' failed"
            )
        return search()


@dataclass
class Imprecise:
    """Compares with every row, and is off by up to `most`: by no more than it may be, or by more."""

    most: float

    def __call__(self, search: Search, asked: dict[str, Any]) -> Scored:
        scores, rows = search(count=asked["rows"])
        seed = int(np.abs(asked["queries"][0] * 1e6).sum())  # the same question is answered alike
        off = np.random.default_rng(seed).uniform(-self.most, self.most, scores.shape).astype(np.float32)
        order = np.argsort(-(scores + off), axis=1)[:, : asked["count"]]
        return np.take_along_axis(scores + off, order, 1), np.take_along_axis(rows, order, 1)


class FullDevice(CpuDevice):
    """Says that it has room, and fails all the same."""

    def build(self, shape: Shape, vectors: Any) -> CpuIndex:
        del shape, vectors
        raise RuntimeError("Error in allocMemory: Error: StandardGpuResources: alloc fail size 123 (out of memory [2])")


def make_device(kind: str, name: str = "GPU 0") -> CpuDevice:
    """A device by the name of what it does."""
    return _MAKERS[kind](name)


_MAKERS: dict[str, Callable[[str], CpuDevice]] = {
    "filtering": lambda name: CpuDevice(name, abilities=WITH_CUVS),
    "ignoring": lambda name: TwistedDevice(name, ignoring, abilities=WITHOUT_CUVS),
    "deaf": lambda name: TwistedDevice(name, ignoring, abilities=WITH_CUVS),  # says that it filters
    "lying": lambda name: TwistedDevice(name, Lying(), abilities=WITH_CUVS),
    "lying without filters": lambda name: TwistedDevice(name, Lying(), abilities=WITHOUT_CUVS),
    "imprecise": lambda name: TwistedDevice(name, Imprecise(0.3), abilities=WITH_CUVS),
    "full": lambda name: FullDevice(name, abilities=WITH_CUVS),
    "tiny": lambda name: CpuDevice(name, bytes_in_all=0, abilities=WITH_CUVS),
}
DEVICES = tuple(_MAKERS)


def make_placing(device: str = "filtering", gpus: int = 1, **options: Any) -> Placing:
    """Replicas on one pretended GPU, or shards over several; every segment is placed, however small."""
    placement = "replicate" if gpus == 1 else "shard"
    chosen = {"placement": placement, "least_rows": 1, "left_bytes": 0, **options}
    devices = [make_device(device, f"GPU {number}") for number in range(gpus)]
    return Placing(devices, PlacingOptions(**chosen), tell=lambda _: None)
