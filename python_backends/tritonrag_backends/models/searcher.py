"""The live index behind `retriever` and `retrieve`: opened, followed, searched by the batch, with what it remembers and counts."""

from __future__ import annotations

from collections.abc import Mapping

import triton_python_backend_utils as pb_utils

from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_backends.index import Index
from tritonrag_backends.index.ann import faiss_threads
from tritonrag_backends.index.gpu.placing import Placing
from tritonrag_backends.index.live import LiveIndex, ReloadEvent
from tritonrag_backends.index.result_cache import Embed, ResultCache
from tritonrag_backends.models.found import found_tensors
from tritonrag_backends.models.instances import instance_name
from tritonrag_backends.models.metrics import RetrieverMetrics
from tritonrag_backends.models.searches import Search
from tritonrag_backends.settings import Settings


class Searcher:
    """An instance's own reader of the index."""

    def __init__(
        self, model: str, args: Mapping[str, str], settings: Settings, *, threads: int, placing: Placing | None = None
    ) -> None:
        """Open the live version and begin to follow it; refuse one that another embedding model built.

        `args` is what Triton hands to `initialize`. FAISS's BLAS shares its `threads`; NumPy's goes by OPENBLAS_NUM_THREADS, which
        the launcher sets to 1. Raises what `Index.open` raises.
        """
        self._threads = threads
        self._model = model
        self._cache = ResultCache(settings.retriever.cache_bytes)
        self._metrics = RetrieverMetrics(instance_name(args))
        embedder = EmbedderManifest.load(settings.embedder.model, verify=False)
        with faiss_threads(threads):
            self._live = LiveIndex.open(
                settings.index,
                fingerprint=embedder.fingerprint,
                embedder_name=embedder.name,
                poll_s=settings.retriever.poll_s,
                on_reload=self._reloaded,
                placing=placing,
            )
        self._metrics.serves(self._live.current)
        self._live.follow()

    @property
    def current(self) -> Index:
        """The live version; to be read once a batch, so that all of it is answered from one."""
        return self._live.current

    def search(self, index: Index, searches: list[Search], embed: Embed = tuple) -> list[list[pb_utils.Tensor]]:
        """The output tensors of each request. `embed` is asked for the embeddings of queries that come without."""
        asked = [one for search in searches for one in search.asked]
        # In here, since the number counts for the calling thread alone, and what waited at the door has a thread of its own.
        with faiss_threads(self._threads):
            answered = self._cache.search(index, asked, embed)
        self._metrics.answered([index.mode_of(one.query) for one in asked], answered)
        self._metrics.degraded(index)
        hits = iter(answered.hits)
        return [found_tensors(index, search, [next(hits) for _ in search.asked]) for search in searches]

    def close(self) -> None:
        """Stop following the index."""
        self._live.close()

    def _reloaded(self, event: ReloadEvent) -> None:
        """Told by the thread that follows the index."""
        if event.damage:
            self._metrics.serves(event.index)
            pb_utils.Logger.log_error(f"{self._model}: {event.damage}")
            return
        self._metrics.reloaded(event)
        serving = f"version {event.index.version} of the index ({event.index.passage_count} passages)"
        if event.error is None:
            pb_utils.Logger.log_info(f"{self._model}: now serving {serving}")
        elif not event.repeated:
            pb_utils.Logger.log_error(
                f"{self._model}: goes on serving {serving}, since a new one failed: {event.error!r}"
            )
