"""Triton model `retriever`: questions to the passages that fit them best, one search for all requests of a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import faiss
import numpy as np
import triton_python_backend_utils as pb_utils

from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_backends.index import Hits, Index
from tritonrag_backends.index.live import LiveIndex, ReloadEvent
from tritonrag_backends.index.result_cache import Asked, ResultCache
from tritonrag_backends.models.edge import serve_batch, strings_tensor
from tritonrag_backends.models.instances import instance_name
from tritonrag_backends.models.metrics import RetrieverMetrics
from tritonrag_backends.models.placing import open_placing
from tritonrag_backends.models.searches import Search, read_search
from tritonrag_backends.models.threads import allowed_cores, count_instances, plan_threads
from tritonrag_backends.models.turn import taking_memory
from tritonrag_backends.settings import load_settings
from tritonrag_client.contract import DEGRADED, INDEX_VERSION, NO_PASSAGE, PASSAGE_IDS, PASSAGES, RETRIEVER, SCORES


class TritonPythonModel:
    """A question's tensors to `passage_ids`, `scores`, `passages` [batch, k] and `index_version`, `degraded` [batch, 1]."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the live version of the index and begin to follow it; refuse one that another embedding model built."""
        with taking_memory(RETRIEVER, instance_name(args)):
            self._open(args)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Search for what the dynamic batcher gathered."""
        index = self._live.current  # once: the whole batch is answered from one version
        return serve_batch(
            requests,
            RETRIEVER,
            partial(read_search, index=index, settings=self._settings),
            partial(self._search, index),
        )

    def finalize(self) -> None:
        """Stop following the index."""
        self._live.close()

    def _open(self, args: dict[str, str]) -> None:
        self._settings = load_settings()
        retriever = self._settings.retriever
        _set_threads(retriever.threads, args["model_config"])
        embedder = EmbedderManifest.load(self._settings.embedder.model, verify=False)
        self._cache = ResultCache(retriever.cache_bytes)
        self._metrics = RetrieverMetrics(instance_name(args))
        self._live = LiveIndex.open(
            self._settings.index,
            fingerprint=embedder.fingerprint,
            embedder_name=embedder.name,
            poll_s=retriever.poll_s,
            on_reload=self._reloaded,
            placing=open_placing(retriever, args, tell=_tell),
        )
        self._metrics.serves(self._live.current)
        self._live.follow()

    def _search(self, index: Index, searches: list[Search]) -> list[list[pb_utils.Tensor]]:
        asked = [one for search in searches for one in search.asked]
        answered = self._cache.search(index, asked)
        self._metrics.answered([index.mode_of(one.query) for one in asked], answered)
        self._metrics.degraded(index)
        hits = iter(answered.hits)
        return [_tensors(index, search, [next(hits) for _ in search.asked]) for search in searches]

    def _reloaded(self, event: ReloadEvent) -> None:
        """Told by the thread that follows the index."""
        self._metrics.reloaded(event)
        serving = f"version {event.index.version} of the index ({event.index.passage_count} passages)"
        if event.error is None:
            pb_utils.Logger.log_info(f"{RETRIEVER}: now serving {serving}")
        elif not event.repeated:
            pb_utils.Logger.log_error(
                f"{RETRIEVER}: goes on serving {serving}, since a new one failed: {event.error!r}"
            )


def _tell(line: str) -> None:
    """Where the index is searched."""
    pb_utils.Logger.log_info(f"{RETRIEVER}: {line}")


def _set_threads(wanted: int, model_config: str) -> None:
    """FAISS's threads, which its BLAS shares. NumPy's BLAS goes by OPENBLAS_NUM_THREADS, which the launcher sets to 1."""
    plan = plan_threads(wanted, instances=count_instances(model_config), cores=allowed_cores())
    faiss.omp_set_num_threads(plan.threads)
    if plan.too_many:
        pb_utils.Logger.log_warn(
            f"{RETRIEVER}: {plan.instances} instances of {plan.threads} threads each on {plan.cores} cores hold each other up; "
            "lower TRITONRAG_RETRIEVER_THREADS (0 chooses) or TRITONRAG_RETRIEVER_INSTANCES"
        )


def _tensors(index: Index, search: Search, hits: list[Hits]) -> list[pb_utils.Tensor]:
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
