"""As many vectors as a measurement wants, out of those that there are: some of them, or all and then variants of them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritonrag_client.errors import BadRequestError

Float32Array = npt.NDArray[np.float32]

COSINE = 0.9  # of a variant to the vector that it was made of
_BLOCK_ROWS = 8_192


def read_vectors(path: Path) -> Float32Array:
    """Map a .npy file of vectors, FP32 [rows, dims] of unit length. Raises BadRequestError where it holds something else."""
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadRequestError(f"the vectors in {path} can't be read: {error}; give a .npy file") from error
    if vectors.dtype != np.float32 or vectors.ndim != 2 or not vectors.size:  # noqa: PLR2004 - rows and dims
        raise BadRequestError(f"{path} holds {vectors.dtype} {vectors.shape}; give float32 [rows, dims]")
    if not np.allclose(np.linalg.norm(vectors[:100], axis=1), 1, atol=5e-3):
        raise BadRequestError(f"the vectors in {path} are not of unit length; give what an encoder returns")
    return np.asarray(vectors)


def write_set(vectors: Float32Array, rows: int, path: Path, *, seed: int = 0) -> Float32Array:
    """Write a set of that many vectors as .npy and map it. The same seed gives the same set.

    Fewer than there are: drawn at random, in their order. More: all of them, then as many variants as are missing. A variant is a
    vector plus the difference of two others, at a right angle to it and so long that their cosine is 0.9: noise that lies in the
    directions in which the vectors themselves differ, where noise from everywhere would be at a right angle to all questions.
    """
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(vectors), rows, replace=False)) if rows < len(vectors) else np.arange(rows)
    target = np.lib.format.open_memmap(path, "w+", np.float32, (rows, vectors.shape[1]))  # type: ignore[no-untyped-call]
    for start in range(0, rows, _BLOCK_ROWS):
        origins = chosen[start : start + _BLOCK_ROWS]
        block = np.asarray(vectors[origins % len(vectors)])
        made = origins >= len(vectors)
        block[made] = _variants(block[made], vectors, random)
        target[start : start + len(block)] = block
    target.flush()
    return read_vectors(path)


def _variants(origins: Float32Array, vectors: Float32Array, random: np.random.Generator) -> Float32Array:
    one, other = (vectors[random.integers(0, len(vectors), len(origins))] for _ in range(2))
    noise = one - other
    noise -= np.einsum("nd,nd->n", noise, origins)[:, None] * origins
    lengths = np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-9)
    moved = origins + np.sqrt(1 / COSINE**2 - 1) * noise / lengths
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)
