"""What the index asks of a device that searches vectors: built there, searched there, never trusted.

The devices are FAISS's GPUs (`faiss_gpu.py`) and, where there is none, FAISS on the CPU in their place (`stand_in.py`).
"""

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from tritonrag_backends.index.ann import Bitmap, Float32Array, Int64Array, VectorSource

DeviceKind = Literal["flat", "ivf_flat", "ivf_pq", "cagra"]
DeviceKindChoice = Literal["auto", "flat", "ivf_flat", "ivf_pq", "cagra"]
Scored = tuple[Float32Array, Int64Array]

# What FAISS raises through its Python wrapper when a device fails: its own exceptions, and std::bad_alloc.
DEVICE_FAILURES: Final = (RuntimeError, MemoryError)

# What inner products of unit vectors may be off by. FP32: as two FAISS kernels differ from each other. FP16: a value is rounded by
# at most 2**-11 of itself, in the question and in the row; the rest is for sums in FP32 over up to 4,096 values.
FP32_ERROR: Final = 1e-5
FP16_ERROR: Final = 2.0**-10 + 2.0**-12

_MUCH_BYTES: Final = 64 * 2**20  # 3 to 6 ms over PCIe


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """An index to be built. `lists` is of the ivf kinds (0: none), `sub_quantizers`, of 8 bits each, of ivf_pq."""

    kind: DeviceKind
    rows: int
    dims: int
    fp16: bool
    lists: int = 0
    sub_quantizers: int = 0

    @property
    def takes_long(self) -> bool:
        """Whether building it may take so long that searches should not wait: something is learned, or there is much to copy."""
        return self.kind != "flat" or 4 * self.rows * self.dims > _MUCH_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a device's FAISS can do: build the graph kind, filter by its own account, and return how many rows (or probe lists)."""

    cagra: bool
    filters: bool
    most: int


class DeviceIndex(Protocol):
    """An index over some rows of a segment, numbered from 0. Safe for many threads: it lets them in one after the other."""

    def search(self, queries: Float32Array, count: int, *, effort: int, allowed: Bitmap | None) -> Scored:
        """The best `count` rows for each of FP32 [n, dims]: scores FP32 and rows INT64 [n, count], -1 for none, best first.

        `effort` is nprobe or itopk_size; flat has none. `allowed` is UINT8 [rows / 8, rounded up], little endian, or None for all;
        a device may ignore it. Raises one of DEVICE_FAILURES.
        """

    def close(self) -> None:
        """Give the memory back; nothing may be searched afterwards. Called twice, it does nothing."""


class Builder(Protocol):
    """Builds what one version of the index needs on a device."""

    def extra_bytes(self, shape: Shape) -> int:
        """What building this takes besides the index, and keeps: work space that is not there yet."""

    def build(self, shape: Shape, vectors: VectorSource) -> DeviceIndex:
        """An index over all of `vectors`. Raises one of DEVICE_FAILURES; then nothing is left on the device."""


class Device(Protocol):
    """A device, by the name by which people know it."""

    @property
    def name(self) -> str:
        """Such as "GPU 0"."""

    @property
    def abilities(self) -> Abilities:
        """What its FAISS can do."""

    def free_bytes(self) -> int:
        """Memory that nobody uses now. Raises OSError where it can't be asked."""

    def begin(self) -> Builder:
        """A builder for one version of the index."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `start` to `stop` of a source of vectors, as a source."""

    source: VectorSource
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.stop - self.start

    @property
    def dims(self) -> int:
        """Values of each."""
        return self.source.dims

    def block(self, start: int, stop: int) -> Float32Array:
        """Rows `start` to `stop` of these as FP32 [stop - start, dims], C-contiguous."""
        return self.source.block(self.start + start, self.start + min(stop, self.rows))

    def take(self, rows: Int64Array) -> Float32Array:
        """These rows of these as FP32 [n, dims]."""
        return self.source.take(self.start + rows)
