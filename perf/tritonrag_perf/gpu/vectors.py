"""Millions of vectors with neighbours in them, made on the device out of real ones, and the exact answers to look for.

The stored vectors are real embeddings of Python's documentation, then variants of them. A variant lies at a cosine of 0.75 to 0.95,
drawn evenly, to the vector of which it is made, in the direction in which two others differ (as in
tritonrag_perf.index_kinds_vectors): noise from everywhere would be at a right angle to every question, and to search among vectors
without structure is another task.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.vectors import Float32Array

NEAREST, FARTHEST = 0.95, 0.75  # cosines of a variant to its original
_BLOCK_ROWS: Final = 1_000_000
_COMPARED_ROWS: Final = 500_000


def make_vectors(real: Float32Array, rows: int, *, device: str, seed: int = 0) -> Float32Array:
    """FP32 [rows, dims] of unit length in the host's memory: the real ones first, in their order, then variants."""
    import torch  # noqa: PLC0415 - only where it is measured

    generator = torch.Generator(device).manual_seed(seed)
    originals = torch.from_numpy(np.ascontiguousarray(real)).to(device)
    made = np.empty((rows, real.shape[1]), np.float32)
    count = min(rows, len(real))
    made[:count] = real[:count]
    for start in range(count, rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, rows)
        made[start:stop] = _variants(torch, originals, start, stop, generator).cpu().numpy()
    del originals
    _give_back(torch, device)
    return made


def _variants(torch: Any, originals: Any, start: int, stop: int, generator: Any) -> Any:  # noqa: ANN401 - torch's values
    count, device = len(originals), originals.device
    of = originals[torch.arange(start, stop, device=device) % count]
    one = torch.randint(count, (stop - start,), device=device, generator=generator)
    other = (one + torch.randint(1, count, (stop - start,), device=device, generator=generator)) % count
    noise = originals[one] - originals[other]
    noise -= (noise * of).sum(1, keepdim=True) * of
    noise = torch.nn.functional.normalize(noise, dim=1)
    cosine = FARTHEST + (NEAREST - FARTHEST) * torch.rand((stop - start, 1), device=device, generator=generator)
    return torch.nn.functional.normalize(cosine * of + torch.sqrt(1 - cosine**2) * noise, dim=1)


def kth_scores(
    vectors: Float32Array, queries: Float32Array, k: int, *, device: str, allowed: npt.NDArray[np.bool_] | None = None
) -> Float32Array:
    """The score FP32 [n] of the k-th best allowed row for each query, by comparing with all of them in FP32 on the device."""
    import torch  # noqa: PLC0415

    torch.backends.cuda.matmul.allow_tf32 = False  # its products have ten bits: no reference
    asked = torch.from_numpy(np.ascontiguousarray(queries)).to(device)
    best = torch.full((len(queries), k), -np.inf, device=device)
    for start in range(0, len(vectors), _COMPARED_ROWS):
        stop = min(start + _COMPARED_ROWS, len(vectors))
        scores = asked @ torch.from_numpy(vectors[start:stop]).to(device).T
        if allowed is not None:
            scores[:, torch.from_numpy(~allowed[start:stop]).to(device)] = -np.inf
        top = torch.topk(scores, min(k, stop - start), dim=1).values
        best = torch.topk(torch.cat([best, top], dim=1), k, dim=1).values
    found = np.asarray(best[:, -1].cpu().numpy(), np.float32)
    del asked, best, scores, top
    _give_back(torch, device)
    return found


def _give_back(torch: Any, device: str) -> None:  # noqa: ANN401 - torch's module
    """Memory that torch would keep for itself, and that FAISS needs."""
    if device == "cuda":
        torch.cuda.empty_cache()
