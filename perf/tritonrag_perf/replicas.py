"""As many passages as are wanted out of those of an index: its own, then replicas of them, for tests of scale.

A replica's vector is the original's plus Gaussian noise, brought back to unit length. The noise has the covariance of the index's
own vectors, so that replicas differ in the directions in which passages do; it is turned to a right angle to the original and given
the length that makes the cosine of the two 0.9. A replica's text is the original's without three words in ten. Its document has an
id of its own, and the metadata field `copy` tells the replica's number; 0 is the original.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import compress
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index import Index
from tritonrag_backends.index.fields import decode_document_key
from tritonrag_backends.index.segment import Segment
from tritonrag_backends.index.writer import NewPassage
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

COSINE: Final = 0.9
_DROPPED: Final = 0.3  # share of a text's words
_BLOCK_ROWS: Final = 4_096  # 6 MB of vectors at 384 dimensions
_SAMPLE_ROWS: Final = 20_000
_LEAST_VARIANCE: Final = 1e-6  # so that there is a direction where all vectors are one
_WORD: Final = re.compile(r"\S+\s*")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Passages with their vectors FP32 [n, dim] of unit length."""

    passages: list[NewPassage]
    vectors: Float32Array


class Replicas:
    """The passages of `index`, as often as they are wanted; the same seed gives the same ones.

    Memory: 8 bytes a passage of the index, and one block. Raises BadRequestError where there is no passage, or where stored vectors
    are shorter than the model's own.
    """

    def __init__(self, index: Index, *, seed: int = 0) -> None:
        if index.manifest.vectors.reduction != "none":
            raise BadRequestError(
                f"the index stores vectors of {index.manifest.vectors.dims} values where the model makes {index.dim}; "
                "take one that was built without --dims"
            )
        self._segments = index.segments
        self._live = [np.arange(one.rows) if one.alive is None else np.flatnonzero(one.alive) for one in index.segments]
        self._seed = seed
        if not self.rows:
            raise BadRequestError("the index holds no passage; take one that does")
        self._colouring = _colouring(self._sample())

    @property
    def rows(self) -> int:
        """How many passages the index has itself."""
        return sum(map(len, self._live))

    def blocks(self, rows: int) -> Iterator[Block]:
        """So many passages: all originals, then all first replicas and so on; the last turn is cut short by an even choice.

        Raises BadRequestError where none is wanted.
        """
        if rows < 1:
            raise BadRequestError(f"rows is {rows}; give 1 or more")
        for copy in range(-(-rows // self.rows)):
            wanted = min(self.rows, rows - copy * self.rows)
            for segment, chosen in self._placed(np.arange(wanted) * self.rows // wanted):
                for start in range(0, len(chosen), _BLOCK_ROWS):
                    yield self._block(segment, chosen[start : start + _BLOCK_ROWS], copy)

    def _placed(self, places: Int64Array) -> Iterator[tuple[Segment, Int64Array]]:
        """Each segment with those of its rows that stand at these places, ascending, among all rows that are not deleted."""
        first = 0
        for segment, live in zip(self._segments, self._live, strict=True):
            here = places[(places >= first) & (places < first + len(live))]
            yield segment, live[here - first]
            first += len(live)

    def _block(self, segment: Segment, rows: Int64Array, copy: int) -> Block:
        random = np.random.default_rng([self._seed, copy, segment.number, int(rows[0])])
        vectors = _unit(segment.files.vectors.take(rows))
        if copy:
            vectors = _moved(vectors, random.standard_normal(vectors.shape, np.float32) @ self._colouring)
        passages = [_new_passage(segment, int(row), copy, random) for row in rows]
        return Block(passages=passages, vectors=vectors)

    def _sample(self) -> Float32Array:
        step = -(-self.rows // _SAMPLE_ROWS)
        pairs = zip(self._segments, self._live, strict=True)
        return np.concatenate([segment.files.vectors.take(live[::step]) for segment, live in pairs])


def _colouring(sample: Float32Array) -> Float32Array:
    """FP32 [dim, dim] that turns white noise into noise with the sample's covariance, its length about 1."""
    centred = sample.astype(np.float64) - sample.mean(axis=0)
    covariance = centred.T @ centred / len(sample) + _LEAST_VARIANCE * np.eye(sample.shape[1])
    variances, axes = np.linalg.eigh(covariance / covariance.trace())
    return np.asarray((axes * np.sqrt(np.maximum(variances, 0))) @ axes.T, np.float32)


def _moved(vectors: Float32Array, noise: Float32Array) -> Float32Array:
    """Unit vectors FP32 [n, dim] turned towards the noise until their cosine to what they were is COSINE."""
    across = _unit(noise - np.einsum("nd,nd->n", noise, vectors)[:, None] * vectors)
    return _unit(COSINE * vectors + math.sqrt(1 - COSINE**2) * across)


def _new_passage(segment: Segment, row: int, copy: int, random: np.random.Generator) -> NewPassage:
    key = decode_document_key(segment.files.fields.key(int(segment.owners[row])))
    passage = Passage.from_json(segment.passage(row))
    passage = replace(passage, metadata={**passage.metadata, "copy": copy})
    if not copy:
        return NewPassage(document=key.document, tenant=key.tenant, passage=passage)
    text = _thinned(passage.text, random)
    return NewPassage(
        document=f"{key.document}#copy-{copy}",
        tenant=key.tenant,
        passage=replace(passage, text=text, end=passage.start + len(text)),
    )


def _thinned(text: str, random: np.random.Generator) -> str:
    """The text without some of its words, but never without all."""
    words = _WORD.findall(text)
    return "".join(compress(words, random.random(len(words)) >= _DROPPED)).rstrip() or text


def _unit(vectors: Float32Array) -> Float32Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
