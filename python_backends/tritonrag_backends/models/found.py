"""What was found, as the output tensors of `retriever` and `retrieve`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from tritonrag_backends.index import Hits, Index
from tritonrag_backends.index.result_cache import Asked
from tritonrag_backends.models.edge import strings_tensor
from tritonrag_backends.models.searches import Search
from tritonrag_client.contract import DEGRADED, INDEX_VERSION, NO_PASSAGE, PASSAGE_IDS, PASSAGES, SCORES


def found_tensors(index: Index, search: Search, hits: list[Hits]) -> list[pb_utils.Tensor]:
    """Only what was asked for: text is the dear part of a response."""
    ids, scores = _padded(search.asked, hits)
    makers: dict[str, Callable[[], pb_utils.Tensor]] = {
        PASSAGE_IDS: lambda: pb_utils.Tensor(PASSAGE_IDS, ids),
        SCORES: lambda: pb_utils.Tensor(SCORES, scores),
        PASSAGES: lambda: strings_tensor(PASSAGES, _passages(index, ids), ids.shape),
        INDEX_VERSION: lambda: pb_utils.Tensor(INDEX_VERSION, np.full((len(hits), 1), index.version, np.int64)),
        DEGRADED: lambda: strings_tensor(DEGRADED, [index.degraded.encode()] * len(hits), (len(hits), 1)),
    }
    return [make() for name, make in makers.items() if not search.outputs or name in search.outputs]


def _padded(asked: list[Asked], hits: list[Hits]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Ids INT64 and scores FP32 [rows, k], where k is the most passages that a row asked for."""
    shape = (len(hits), max(one.query.num_passages for one in asked))
    ids, scores = np.full(shape, NO_PASSAGE, np.int64), np.zeros(shape, np.float32)
    for row, hit in enumerate(hits):
        ids[row, : len(hit.passage_ids)] = hit.passage_ids
        scores[row, : len(hit.scores)] = hit.scores
    return ids, scores


def _passages(index: Index, ids: np.ndarray[Any, Any]) -> list[bytes]:
    flat = ids.ravel()
    texts = iter(index.passages(flat[flat != NO_PASSAGE]))
    return [b"" if passage_id == NO_PASSAGE else next(texts) for passage_id in flat]
