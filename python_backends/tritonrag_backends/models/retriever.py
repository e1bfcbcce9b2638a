"""Triton model `retriever`: a question's vector to the passages nearest to it, one FAISS call for all requests of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import triton_python_backend_utils as pb_utils

from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_backends.index import Hits, Index, Query, parse_filter
from tritonrag_backends.models.edge import array_of, serve_batch, strings_tensor, texts_of
from tritonrag_backends.settings import Settings, load_settings
from tritonrag_client.contract import (
    EMBEDDING,
    FILTER,
    INDEX_VERSION,
    NO_PASSAGE,
    NUM_PASSAGES,
    PASSAGE_IDS,
    PASSAGES,
    RETRIEVER,
    SCORES,
    TENANT,
)
from tritonrag_client.errors import BadRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    queries: list[Query]
    outputs: frozenset[str]


class TritonPythonModel:
    """`embedding` [batch, dim] and options to `passage_ids`, `scores`, `passages` [batch, k], `index_version` [batch, 1]."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 - Triton's signature
        """Open the live version of the index; refuse one that another embedding model built."""
        self._settings: Settings = load_settings()
        faiss.omp_set_num_threads(self._settings.retriever.threads)
        embedder = EmbedderManifest.load(self._settings.embedder.model, verify=False)
        self._index = Index.open(self._settings.index, fingerprint=embedder.fingerprint, embedder_name=embedder.name)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Search for what the dynamic batcher gathered."""
        return serve_batch(requests, RETRIEVER, self._read, self._search)

    def _read(self, request: pb_utils.InferenceRequest) -> _Asked:
        vectors = array_of(request, EMBEDDING)
        assert vectors is not None  # noqa: S101 - config.pbtxt makes it required
        rows = len(vectors)
        counts = self._num_passages(request, rows)
        tenants = texts_of(request, TENANT, self._settings.limits.text_bytes, "TRITONRAG_LIMITS_TEXT_BYTES")
        filters = texts_of(request, FILTER, self._settings.limits.filter_bytes, "TRITONRAG_LIMITS_FILTER_BYTES")
        queries = [
            Query(
                embedding=vectors[row],
                num_passages=counts[row],
                tenant=tenants[row] or None if tenants else None,
                filter=parse_filter(filters[row]) if filters and filters[row] else None,
            )
            for row in range(rows)
        ]
        for query in queries:
            self._index.check(query)  # here, so that a bad one fails alone
        return _Asked(queries=queries, outputs=frozenset(request.requested_output_names()))

    def _num_passages(self, request: pb_utils.InferenceRequest, rows: int) -> list[int]:
        array = array_of(request, NUM_PASSAGES)
        if array is None:
            return [self._settings.retriever.num_passages] * rows
        most = self._settings.limits.num_passages
        counts = [int(value) for value in array.ravel()]
        for count in counts:
            if not 1 <= count <= most:
                raise BadRequestError(f"{NUM_PASSAGES} is {count}; ask for 1 to {most}")
        return counts

    def _search(self, asked: list[_Asked]) -> list[list[pb_utils.Tensor]]:
        hits = iter(self._index.search([query for one in asked for query in one.queries]))
        return [self._tensors(one.outputs, [next(hits) for _ in one.queries]) for one in asked]

    def _tensors(self, outputs: frozenset[str], hits: list[Hits]) -> list[pb_utils.Tensor]:
        """Only what was asked for: text is the dear part of a response."""
        shape = (len(hits), max(len(hit.passage_ids) for hit in hits))
        ids = np.full(shape, NO_PASSAGE, np.int64)
        scores = np.zeros(shape, np.float32)
        for row, hit in enumerate(hits):
            ids[row, : len(hit.passage_ids)] = hit.passage_ids
            scores[row, : len(hit.scores)] = hit.scores
        makers: dict[str, Callable[[], pb_utils.Tensor]] = {
            PASSAGE_IDS: lambda: pb_utils.Tensor(PASSAGE_IDS, ids),
            SCORES: lambda: pb_utils.Tensor(SCORES, scores),
            PASSAGES: lambda: strings_tensor(PASSAGES, self._passages(ids), shape),
            INDEX_VERSION: lambda: pb_utils.Tensor(
                INDEX_VERSION, np.full((len(hits), 1), self._index.version, np.int64)
            ),
        }
        return [make() for name, make in makers.items() if not outputs or name in outputs]

    def _passages(self, ids: np.ndarray[Any, Any]) -> list[bytes]:
        flat = ids.ravel()
        texts = iter(self._index.passages(flat[flat != NO_PASSAGE]))
        return [b"" if passage_id == NO_PASSAGE else next(texts) for passage_id in flat]
