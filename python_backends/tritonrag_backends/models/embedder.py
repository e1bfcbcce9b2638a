"""Triton model `embedder` (profile cpu): texts to unit vectors, all requests of a batch packed into one run."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.models.door import Door
from tritonrag_backends.models.edge import serve_batch
from tritonrag_backends.models.metrics import EmbedderMetrics
from tritonrag_backends.models.texts import TypedTexts, read_typed_texts
from tritonrag_backends.settings import load_settings
from tritonrag_client.contract import EMBEDDER, EMBEDDING


class TritonPythonModel:
    """`text_input` and `input_type` STRING [batch, 1] to `embedding` FP32 [batch, dim], rows of unit length."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model folder that the settings name."""
        settings = load_settings()
        self._limit_bytes = settings.limits.text_bytes
        embedder = settings.embedder
        self._encoder = Encoder.open(embedder.model, precision=embedder.precision, threads=embedder.threads)
        self._metrics = EmbedderMetrics()
        self._door = Door(EMBEDDER, settings.limits, args, self._answer)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse | None]:
        """Embed what the dynamic batcher gathered."""
        return self._door.serve(requests)

    def finalize(self) -> None:
        """Answer what waits."""
        self._door.close()

    def _answer(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        return serve_batch(requests, EMBEDDER, self._read, self._embed)

    def _read(self, request: pb_utils.InferenceRequest) -> TypedTexts:
        return read_typed_texts(request, self._limit_bytes)

    def _embed(self, groups: list[TypedTexts]) -> list[list[pb_utils.Tensor]]:
        together = TypedTexts.joined(groups)
        embedded = self._encoder.encode(together.texts, input_type=together.input_types)
        self._metrics.embedded(embedded.real_tokens, embedded.computed_tokens)
        ends = np.cumsum([len(group.texts) for group in groups])[:-1]
        return [[pb_utils.Tensor(EMBEDDING, rows)] for rows in np.split(embedded.vectors, ends)]
