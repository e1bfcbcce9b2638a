"""The index as its readers see it: open one version, search it in batches, read passages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.filters import Filter, require_declared
from tritonrag_backends.index.format import ROW_BITS, Manifest
from tritonrag_backends.index.kinds import use_blas_when_faster
from tritonrag_backends.index.segment import Segment
from tritonrag_backends.index.store import read_current
from tritonrag_client.errors import BadRequestError, NotFoundError

# int8 encoders normalise in fp32, so their vectors are of unit length to 1e-6; fp16 ones to 1e-3.
_UNIT_TOLERANCE: Final = 5e-3
_NO_FIELDS: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """One question. `embedding` is FP32 [dim] of unit length; `text` serves lexical search, which this version has not.

    `tenant` None sees what belongs to no tenant; in this version that is every passage.
    """

    embedding: npt.NDArray[np.float32]
    num_passages: int
    text: str = ""
    tenant: str | None = None
    filter: Filter | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hits:
    """What was found: ids INT64 [k] and cosine similarities FP32 [k], descending, ties by id; k <= num_passages."""

    passage_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class Index:
    """One version of an index, open for reading; immutable, and safe for many threads. Made by `Index.open`."""

    def __init__(self, *, manifest: Manifest, segments: Sequence[Segment]) -> None:
        self.manifest: Final = manifest
        self._segments = tuple(segments)
        self._by_number = {segment.number: segment for segment in segments}

    @classmethod
    def open(
        cls, directory: Path, *, fingerprint: str | None, verify: bool = True, embedder_name: str | None = None
    ) -> "Index":
        """Open the live version. `fingerprint` (and, for the message, `embedder_name`) are the serving embedder's; None: any.

        Raises NotFoundError where there is no index, BadRequestError where another model made it, InternalError where a file is
        damaged; each says what to do. `verify` false leaves out the sha256 of segment files: for those who have just checked.
        """
        manifest = read_current(directory)
        _require_same_model(manifest, fingerprint, embedder_name)
        dim = manifest.embedding.dim
        segments = [Segment.open(directory, record, dim=dim, verify=verify) for record in manifest.segments]
        use_blas_when_faster(dim)
        return cls(manifest=manifest, segments=segments)

    @property
    def version(self) -> int:
        """The version, from 1; it goes into every response and cache key."""
        return self.manifest.index_version

    @property
    def dim(self) -> int:
        """Values in an embedding."""
        return self.manifest.embedding.dim

    @property
    def passage_count(self) -> int:
        """Passages in this version."""
        return self.manifest.counts.passages

    @property
    def embedding_name(self) -> str:
        """The model that made the vectors."""
        return self.manifest.embedding.name

    def check(self, query: Query) -> None:
        """Raise BadRequestError where `search` could not honour the query; names the value and the way out."""
        if query.num_passages < 1:
            raise BadRequestError(f"num_passages is {query.num_passages}; ask for at least 1")
        if query.filter is not None:
            require_declared(query.filter, _NO_FIELDS)
        _check_embedding(query.embedding, self.dim)

    def search(self, queries: Sequence[Query]) -> list[Hits]:
        """The best passages for each query, with one FAISS call a segment for all of them.

        Raises BadRequestError as `check` does for the first query that is wrong; one who serves many callers in a batch calls
        `check` for each before, so that one's mistake is not the other's error.
        """
        for query in queries:
            self.check(query)
        if not queries:
            return []
        most = min(max(query.num_passages for query in queries), self.passage_count)
        ids, scores = self._search_segments(np.stack([query.embedding for query in queries]), most)
        return [_hits(ids[i], scores[i], query.num_passages) for i, query in enumerate(queries)]

    def passages(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> list[bytes]:
        """The wire JSON of each passage, as it lies on the disk. Raises NotFoundError for an id that this version lacks."""
        return [self._passage(int(passage_id)) for passage_id in ids]

    def _search_segments(
        self, embeddings: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        point = self.manifest.operating_point
        found = [segment.search(embeddings, min(k, segment.rows), point) for segment in self._segments]
        if len(found) == 1:
            return found[0]
        ids, scores = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        order = np.lexsort((ids, -scores), axis=1)[:, :k]
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def _passage(self, passage_id: int) -> bytes:
        segment = self._by_number.get(passage_id >> ROW_BITS)
        row = passage_id & (2**ROW_BITS - 1)
        if segment is None or row >= segment.rows:
            raise NotFoundError(f"passage {passage_id} is not in version {self.version} of the index; search again")
        return segment.passage(row)


def _hits(ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], num_passages: int) -> Hits:
    """Cut to what was asked for; a graph that found fewer leaves a tail of -1."""
    found = min(num_passages, int(np.count_nonzero(ids >= 0)))
    return Hits(passage_ids=ids[:found], scores=scores[:found])


def _check_embedding(embedding: npt.NDArray[np.float32], dim: int) -> None:
    if embedding.dtype != np.float32 or embedding.shape != (dim,):
        raise BadRequestError(
            f"embedding is {embedding.dtype} of shape {list(embedding.shape)} and this index holds float32 of shape [{dim}]; "
            "send what the model `embedder` returns"
        )
    length = float(np.dot(embedding, embedding)) ** 0.5
    if not abs(length - 1) <= _UNIT_TOLERANCE:  # so written that NaN fails too
        said = f"is of length {length:.4g}" if np.isfinite(embedding).all() else "holds NaN or infinity"
        raise BadRequestError(f"embedding {said}; send a vector of unit length, as the model `embedder` returns it")


def _require_same_model(manifest: Manifest, fingerprint: str | None, embedder_name: str | None) -> None:
    made_by = manifest.embedding
    if fingerprint is None or fingerprint == made_by.fingerprint:
        return
    serving = f"{embedder_name or 'the serving embedder'} (fingerprint {fingerprint})"
    raise BadRequestError(
        f"the index was built with the embedding model {made_by.name} (fingerprint {made_by.fingerprint}) and {serving} is "
        "another one, so their vectors can't be compared; build the index again with `tritonrag index build`, or serve with the "
        "embedder that built it"
    )
