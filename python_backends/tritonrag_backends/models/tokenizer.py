"""Triton model `tokenizer` (profile gpu): texts to padded token ids; with `encoder` behind it, it is `embedder`."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

from tritonrag_backends.embedding.buckets import Buckets, pad
from tritonrag_backends.embedding.format import TOKENIZER_FILE, EmbedderManifest
from tritonrag_backends.embedding.tokens import PrefixingTokenizer
from tritonrag_backends.models.door import Door
from tritonrag_backends.models.edge import serve_batch
from tritonrag_backends.models.texts import TypedTexts, read_typed_texts
from tritonrag_backends.settings import load_settings
from tritonrag_client.contract import ATTENTION_MASK, INPUT_IDS, TOKENIZER


class TritonPythonModel:
    """`text_input` and `input_type` STRING [batch, 1] to `input_ids` and `attention_mask` INT32 [batch, tokens].

    `tokens` is the smallest bucket that holds the request's longest text.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Open the tokenizer of the model folder that the settings name."""
        settings = load_settings()
        self._limit_bytes = settings.limits.text_bytes
        folder = settings.embedder.model
        manifest = EmbedderManifest.load(folder, verify=False)
        manifest.verify(folder, (TOKENIZER_FILE,))
        self._buckets = Buckets.parse(settings.encoder.buckets, max_tokens=manifest.max_tokens)
        self._tokenizer = PrefixingTokenizer.open(folder, manifest)
        self._door = Door(TOKENIZER, settings.limits, args, self._answer)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse | None]:
        """Tokenise what the dynamic batcher gathered."""
        return self._door.serve(requests)

    def finalize(self) -> None:
        """Answer what waits."""
        self._door.close()

    def _answer(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        return serve_batch(requests, TOKENIZER, self._read, self._tokenize)

    def _read(self, request: pb_utils.InferenceRequest) -> TypedTexts:
        return read_typed_texts(request, self._limit_bytes)

    def _tokenize(self, groups: list[TypedTexts]) -> list[list[pb_utils.Tensor]]:
        together = TypedTexts.joined(groups)
        ids = self._tokenizer.tokenize(together.texts, input_type=together.input_types).ids
        ends = np.cumsum([len(group.texts) for group in groups]).tolist()
        return [self._padded(ids[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def _padded(self, ids: list[list[int]]) -> list[pb_utils.Tensor]:
        input_ids, attention_mask = pad(ids, self._buckets.fit(max(map(len, ids))))
        return [pb_utils.Tensor(INPUT_IDS, input_ids), pb_utils.Tensor(ATTENTION_MASK, attention_mask)]
