"""Triton model `retrieve` (profile cpu): questions to the passages that fit them best, embedded and searched in one process.

The ensemble of `embedder` and `retriever` in configs/gpu.pbtxt is its reference: same inputs, same answers. One process saves a hop
with its tensors, and both steps share one batch: docs/benchmarks/serving.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index import Query
from tritonrag_backends.models.door import Door
from tritonrag_backends.models.edge import serve_batch
from tritonrag_backends.models.metrics import EmbedderMetrics
from tritonrag_backends.models.searcher import Searcher
from tritonrag_backends.models.searches import read_questions
from tritonrag_backends.settings import load_settings
from tritonrag_client.contract import RETRIEVE

_THREADS = 1  # instances, one a core, fill the machine


class TritonPythonModel:
    """`text_input` STRING [batch, 1] and its options to the tensors of `retriever`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the embedder and the live version of the index, and begin to follow the index."""
        self._settings = load_settings()
        embedder, retriever = self._settings.embedder, self._settings.retriever
        self._encoder = Encoder.open(embedder.model, precision=embedder.precision, threads=embedder.threads)
        self._metrics = EmbedderMetrics()
        self._searcher = Searcher(RETRIEVE, args, self._settings, threads=retriever.threads or _THREADS)
        self._door = Door(RETRIEVE, self._settings.limits, args, self._answer)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse | None]:
        """Embed and search for what the dynamic batcher gathered."""
        return self._door.serve(requests)

    def finalize(self) -> None:
        """Answer what waits, and stop following the index."""
        self._door.close()
        self._searcher.close()

    def _answer(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        index = self._searcher.current
        return serve_batch(
            requests,
            RETRIEVE,
            partial(read_questions, index=index, settings=self._settings),
            partial(self._searcher.search, index, embed=self._embed),
        )

    def _embed(self, queries: Sequence[Query]) -> list[Query]:
        """Embed those that are searched by vectors; the words of a lexical one are all that is asked."""
        texts = [query.text for query in queries if query.mode != "lexical"]
        vectors = iter(self._vectors(texts))
        return [query if query.mode == "lexical" else replace(query, embedding=next(vectors)) for query in queries]

    def _vectors(self, texts: list[str]) -> npt.NDArray[np.float32]:
        embedded = self._encoder.encode(texts)
        if texts:
            self._metrics.embedded(embedded.real_tokens, embedded.computed_tokens)
        return embedded.vectors
