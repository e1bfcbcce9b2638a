"""`--vectors-from FILE.npy`: vectors that somebody has made already, one a line of the JSONL input."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.writer import NewPassage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.indexing.encoding import PassageEncoder, embedding_text

# Two models' vectors of one text have a cosine of about 0; one model's, with and without the title, of 0.8 and more.
_LEAST_COSINE: Final = 0.5
_LOOKED_AT: Final = 32


class VectorFile:
    """Vectors [n, dim] in a .npy file, FP32, FP16 or FP64, mapped; given out in order, brought to unit length.

    Raises BadRequestError where the file is none, has another dimension than the embedding model, runs out, holds a vector that has
    no direction, or was made by another model: the first vectors are compared with those that the embedding model makes.
    """

    def __init__(self, path: Path, encoder: PassageEncoder) -> None:
        self._path, self._encoder, self._next = path, encoder, 0
        self._vectors = _open(path, encoder.dim)

    @property
    def rows(self) -> int:
        """Vectors in the file."""
        return len(self._vectors)

    def next(self, passages: Sequence[NewPassage]) -> npt.NDArray[np.float32]:
        """The vectors of the next passages, FP32 [n, dim]."""
        first, last = self._next, self._next + len(passages)
        if last > self.rows:
            raise BadRequestError(
                f"{self._path} holds {self.rows} vectors and there are more passages; give one vector a passage, in order"
            )
        vectors = np.asarray(self._vectors[first:last], np.float32)
        lengths = np.linalg.norm(vectors, axis=1)
        wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if wrong.size:
            raise BadRequestError(
                f"{self._path}: vector {first + int(wrong[0])} has length {lengths[wrong[0]]:g}; give finite vectors "
                "that are not zero"
            )
        vectors = np.asarray(vectors / lengths[:, None], np.float32)
        if first == 0:
            self._compare(passages, vectors)
        self._next = last
        return vectors

    def finish(self) -> None:
        """No vector may be left: then passages and vectors do not belong together. Raises BadRequestError."""
        if self._next != self.rows:
            raise BadRequestError(
                f"{self._path} holds {self.rows} vectors and there are {self._next} passages; give one vector a passage, in order"
            )

    def _compare(self, passages: Sequence[NewPassage], vectors: npt.NDArray[np.float32]) -> None:
        texts = [embedding_text(new.passage) for new in passages[:_LOOKED_AT]]
        own = self._encoder.encode(texts, input_type="passage").vectors
        cosine = float(np.mean(np.einsum("nd,nd->n", own, vectors[: len(texts)])))
        if cosine < _LEAST_COSINE:
            raise BadRequestError(
                f"{self._path} was not made by the embedding model {self._encoder.name}: the mean cosine of its first {len(texts)} "
                f"vectors to those of the model is {cosine:.2f}; give vectors of this model in the order of the passages, or leave "
                "--vectors-from out and let it embed them"
            )


def _open(path: Path, dim: int) -> npt.NDArray[Any]:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadRequestError(f"{path} is no .npy file with vectors ({error}); write one with numpy.save") from error
    if vectors.ndim != 2 or vectors.dtype not in (np.float16, np.float32, np.float64) or vectors.shape[1] != dim:  # noqa: PLR2004
        raise BadRequestError(
            f"{path} holds {vectors.dtype} of shape {list(vectors.shape)}; the embedding model makes vectors of {dim} values, "
            f"so give floating point numbers of shape [passages, {dim}]"
        )
    return vectors  # type: ignore[no-any-return]  # numpy.load is untyped
