"""What the hardware allows at most, by two numbers measured on the same card: products a second and bytes a second.

A call can't be faster than its floating-point operations over the one, nor than its bytes over the other (Williams, Waterman and
Patterson, Roofline, 2009).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tritonrag_perf.gpu.timing import Spread, rate, seconds_a_call

_HALF_BYTES: Final = 2
_FULL_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BertShape:
    """The sizes of an encoder of the BERT family, and its longest text in tokens."""

    layers: int
    hidden: int
    intermediate: int
    max_tokens: int

    def flops(self, tokens: int) -> float:
        """Floating-point operations of one text: two for each weight and token, and attention's own two products.

        Word vectors, layer norms, softmax and pooling are left out: below 1 % together.
        """
        weights = 4 * self.hidden**2 + 2 * self.hidden * self.intermediate
        return float(self.layers * (2 * tokens * weights + 4 * tokens**2 * self.hidden))

    def least_bytes(self, batch: int, tokens: int) -> float:
        """Bytes that one call must move: the layers' FP16 weights once, the texts' word vectors in, their vectors out.

        What layers hand to each other is left out, as if it never left the caches: this is a bound, not an estimate.
        """
        weights = self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)
        inputs = batch * tokens * self.hidden
        return float(_HALF_BYTES * (weights + inputs) + _FULL_BYTES * batch * self.hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """Measured peaks: `flops` in FLOP/s, `bandwidth` in bytes/s; `of` says of what."""

    flops: Spread
    bandwidth: Spread
    of: str

    def least_s(self, flops: float, moved_bytes: float) -> float:
        """No call with that work can take less."""
        return max(flops / self.flops.median, moved_bytes / self.bandwidth.median)


def synchroniser(torch: Any, device: str) -> Callable[[], None]:  # noqa: ANN401 - a module without types
    """What waits until the device has done all that it was given."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def measure_roof(device: str, *, tiny: bool) -> Roof:
    """The peaks of a GPU with FP16 products of 8192 x 8192 matrices and copies of 2 GiB, or of the CPU with FP32 ones, small."""
    import torch  # noqa: PLC0415 - only where it is measured

    is_gpu = device == "cuda"
    wait = synchroniser(torch, device)
    size, dtype = (512 if tiny else 8192), (torch.float16 if is_gpu else torch.float32)
    repeats, least_s = (2, 0.01) if tiny else (5, 0.2)
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.matmul(one, other)
        wait()

    products = seconds_a_call(product, repeats=repeats, least_s=least_s)
    source = torch.empty(2**20 if tiny else 2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        wait()

    copies = seconds_a_call(copy, repeats=repeats, least_s=least_s)
    return Roof(
        flops=rate(2 * size**3, products),
        bandwidth=rate(2 * source.numel(), copies),
        of=f"torch, {str(dtype).removeprefix('torch.')} products of {size} x {size}; copies, bytes read and written",
    )
