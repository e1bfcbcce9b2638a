"""The segments of an index version brought onto devices: which go where, whether there is room, what is told when there is none."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, Literal

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.format import EXACT, OperatingPoint
from tritonrag_backends.index.gpu.device import (
    DEVICE_FAILURES,
    Builder,
    Device,
    DeviceKind,
    DeviceKindChoice,
    Rows,
    Shape,
)
from tritonrag_backends.index.gpu.effort import measured
from tritonrag_backends.index.gpu.filling import faiss
from tritonrag_backends.index.gpu.finder import Finder, Part, first_line, honours_selector
from tritonrag_backends.index.gpu.shapes import (
    LEAST_TRAINED_ROWS,
    Share,
    building_bytes,
    deal,
    device_kind,
    index_bytes,
    shape_of,
)
from tritonrag_backends.index.vectors import StoredVectors

# Left free on a device: what FAISS takes in passing (pages of 256 MB that are converted), and code that CUDA loads when first used.
_LEFT_BYTES: Final = 512 * 2**20
_SAMPLE: Final = 4  # questions by which it is tried whether an index filters


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Where a segment is searched: by `finder` on devices, or None: on the CPU, and where that was not meant so, why."""

    finder: Finder | None = None
    gave_up: str = ""


ON_THE_CPU: Final = Placed()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placeable:
    """A segment as it is to be placed; `before`: as another version of the index has it, with the same files."""

    number: int
    kind: Kind
    point: OperatingPoint
    vectors: StoredVectors
    before: Placed = ON_THE_CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingOptions:
    """How to place. Segments of fewer than `least_rows` stay on the CPU, which compares with all of them in no time."""

    placement: Literal["replicate", "shard"] = "replicate"
    kind: DeviceKindChoice = "auto"
    fp16: bool = True
    least_rows: int = LEAST_TRAINED_ROWS
    left_bytes: int = _LEFT_BYTES


class _NoRoomError(Exception):
    """A segment does not fit; says which device has how much."""


@dataclass(slots=True)
class _Version:
    """One version being placed: the builders, made when they are needed."""

    target: float
    builders: dict[int, Builder] = field(default_factory=dict)

    def builder(self, place: int, devices: Sequence[Device]) -> Builder:
        """That of the device at this place."""
        if place not in self.builders:
            self.builders[place] = devices[place].begin()
        return self.builders[place]


class Placing:
    """Places versions of an index on devices. For one thread at a time; what it has placed is safe for many."""

    def __init__(self, devices: Sequence[Device], options: PlacingOptions, *, tell: Callable[[str], None]) -> None:
        """`tell` takes a line for each segment that is placed, or could not be. Replicas are on the first device alone."""
        self._devices: Final = tuple(devices) if options.placement == "shard" else tuple(devices[:1])
        self._options: Final = options
        self._tell: Final = tell
        # One thread for each device asks the parts of a segment, one the segments: they wait for each other in this order alone.
        self._parts: Final = _threads(len(self._devices), "index-parts")
        self._segments: Final = _threads(len(self._devices), "index-segments")

    @property
    def together(self) -> "ThreadPoolExecutor | None":
        """The threads in which the segments are searched at once; None: one after the other, since there is one device."""
        return self._segments if len(self._devices) > 1 else None

    def place(self, segments: Sequence[Placeable], *, target: float) -> list[Placed]:
        """Where each segment is searched from now on. What was placed before stays where it is; what could not be is tried again.

        `target` is the recall@10 that approximate indexes are to reach. Never raises for want of room, or because a device fails.
        """
        version = _Version(target)
        placed = [segment.before if segment.before.finder is not None else ON_THE_CPU for segment in segments]
        waiting = [
            place
            for place, segment in enumerate(segments)
            if placed[place].finder is None and segment.vectors.rows >= max(self._options.least_rows, 1)
        ]
        waiting.sort(key=lambda place: -segments[place].vectors.rows)
        shares = self._deal([segments[place] for place in waiting], placed)
        for place, dealt in zip(waiting, shares, strict=True):
            placed[place] = self._placed(segments[place], dealt, version)
        return placed

    def close(self) -> None:
        """End the threads, when nobody searches any more."""
        self._segments.shutdown()
        self._parts.shutdown()

    def _deal(self, segments: Sequence[Placeable], kept: Sequence[Placed]) -> list[list[Share]]:
        held = {device.name: 0 for device in self._devices}
        for part in (part for one in kept if one.finder is not None for part in one.finder.parts):
            held[part.device] = held.get(part.device, 0) + index_bytes(part.shape)
        sizes = [(segment.vectors.rows, self._bytes(segment)) for segment in segments]
        return deal(sizes, [held[device.name] for device in self._devices])

    def _kind(self, segment: Placeable, rows: int) -> DeviceKind:
        """All devices are of one build of FAISS, and so of the same abilities."""
        return device_kind(self._options.kind, kind=segment.kind, rows=rows, abilities=self._devices[0].abilities)

    def _shape(self, segment: Placeable, kind: DeviceKind, rows: int) -> Shape:
        """cuVS, which filters, holds the vectors of inverted lists in FP32 alone."""
        fp16 = self._options.fp16 and not (kind == "ivf_flat" and self._devices[0].abilities.filters)
        return shape_of(kind, rows=rows, dims=segment.vectors.dims, fp16=fp16)

    def _bytes(self, segment: Placeable) -> int:
        rows = segment.vectors.rows
        return index_bytes(self._shape(segment, self._kind(segment, rows), rows))

    def _placed(self, segment: Placeable, shares: Sequence[Share], version: _Version) -> Placed:
        """On its devices, or, where one of them has no room or fails, on the CPU with all of it."""
        started_s = time.monotonic()
        try:
            finder = self._built(segment, shares, version)
        except (_NoRoomError, OSError, *DEVICE_FAILURES) as error:
            # Its future holds it, and its frames hold the future, and with their callers the version before: device memory would
            # stay taken until the garbage collector comes by.
            error.__traceback__ = None
            size = _size(self._bytes(segment))
            reason = f"segment {segment.number} ({size}) is searched on the CPU: {first_line(error)}"
            self._tell(reason)
            return Placed(gave_up=reason)
        self._tell(_report(segment, finder, time.monotonic() - started_s))
        return Placed(finder)

    def _built(self, segment: Placeable, shares: Sequence[Share], version: _Version) -> Finder:
        kind = self._kind(segment, min(share.stop - share.start for share in shares))
        builders = [version.builder(share.device, self._devices) for share in shares]
        futures = [
            self._parts.submit(self._part, segment, kind, share, builder)
            for share, builder in zip(shares, builders, strict=True)
        ]
        with ExitStack() as undo:
            for future in futures:
                undo.callback(_close, future)
            finder = Finder([future.result() for future in futures], run=self._parts.map)
            if not finder.exact:
                finder = finder.at(self._measured(finder, segment, builders[0], version.target))
            undo.pop_all()
        return finder

    def _part(self, segment: Placeable, kind: DeviceKind, share: Share, builder: Builder) -> Part:
        device, shape = self._devices[share.device], self._shape(segment, kind, share.stop - share.start)
        free = device.free_bytes()
        needed = building_bytes(shape) + builder.extra_bytes(shape) + self._options.left_bytes
        if needed > free:
            raise _NoRoomError(
                f"{device.name} has {_size(free)} free, and {_size(needed)} are needed to build it there"
            )
        rows = Rows(segment.vectors, share.start, share.stop)
        index = builder.build(shape, rows)
        try:
            filters = device.abilities.filters and honours_selector(index, shape, rows.block(0, _SAMPLE))
        except DEVICE_FAILURES:
            index.close()
            raise
        most = device.abilities.most
        return Part(device=device.name, index=index, shape=shape, start=share.start, filters=filters, most=most)

    @staticmethod
    def _measured(finder: Finder, segment: Placeable, builder: Builder, target: float) -> OperatingPoint:
        probes = segment.kind.startswith("ivf_")
        return measured(finder, segment.vectors, builder, point=segment.point, probes=probes, target=target)


def _threads(count: int, name: str) -> ThreadPoolExecutor:
    """Threads in which FAISS uses as many of its own as in this one; OpenMP would give each all cores."""
    return ThreadPoolExecutor(count, name, faiss.omp_set_num_threads, (faiss.omp_get_max_threads(),))


def _close(building: "Future[Part]") -> None:
    """Give back what a part that may have failed holds."""
    if building.exception() is None:
        building.result().index.close()


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"  # noqa: PLR2004 - 0.1 GB


def _report(segment: Placeable, finder: Finder, took_s: float) -> str:
    where = ", ".join(part.device for part in finder.parts)
    megabytes = sum(index_bytes(part.shape) for part in finder.parts) / 1e6
    said = f"segment {segment.number} ({segment.vectors.rows} passages) is searched on {where}: {finder.kind}"
    said += f", {megabytes:.1f} MB, {took_s:.1f} s"
    if finder.point is EXACT:
        return said
    name = "itopk_size" if finder.kind == "cagra" else "nprobe"
    point = finder.point
    return (
        f"{said}, {name} {point.effort}, {point.rescore} re-scored for each wanted, "
        f"recall@10 {point.recall_at_10} on {point.queries} of its own rows"
    )
