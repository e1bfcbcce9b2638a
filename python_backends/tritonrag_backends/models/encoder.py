"""Triton model `encoder` (profile gpu) in Python: padded token ids to unit vectors, on a GPU by ONNX Runtime, or on the CPU.

It stands in for Triton's ONNX Runtime and TensorRT backends where they are not installed. On the CPU it takes the padding
away again and runs the packed graph of profile cpu, so that the vectors are those of profile cpu.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import triton_python_backend_utils as pb_utils

from tritonrag_backends.embedding.buckets import Int32Array, trim
from tritonrag_backends.embedding.encoder import EmbeddedTexts, Encoder
from tritonrag_backends.embedding.padded import GpuPlace, PaddedEncoder
from tritonrag_backends.models.door import Door
from tritonrag_backends.models.edge import array_of, serve_batch
from tritonrag_backends.models.instances import instance_name
from tritonrag_backends.models.metrics import EmbedderMetrics
from tritonrag_backends.models.turn import taking_memory
from tritonrag_backends.settings import Settings, load_settings
from tritonrag_client.contract import ATTENTION_MASK, EMBEDDING, ENCODER, INPUT_IDS
from tritonrag_client.errors import BadRequestError

Padded = tuple[Int32Array, Int32Array]  # input_ids, attention_mask
Encode = Callable[[list[Padded]], EmbeddedTexts]  # rows of all batches in their order


class TritonPythonModel:
    """`input_ids` and `attention_mask` INT32 [batch, tokens] to `embedding` FP32 [batch, dim], rows of unit length."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model folder that the settings name, on the GPU that Triton gave this instance, if any."""
        settings = load_settings()
        on_gpu = args["model_instance_kind"] == "GPU"
        device_id = int(args["model_instance_device_id"]) if on_gpu else None
        with taking_memory(ENCODER, instance_name(args)):
            self._encode = _open(settings, device_id=device_id)
        self._metrics = EmbedderMetrics()
        self._door = Door(ENCODER, settings.limits, args, self._answer)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse | None]:
        """Encode what the dynamic batcher gathered; requests of different lengths among it."""
        return self._door.serve(requests)

    def finalize(self) -> None:
        """Answer what waits."""
        self._door.close()

    def _answer(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        return serve_batch(requests, ENCODER, _read, self._work)

    def _work(self, batches: list[Padded]) -> list[list[pb_utils.Tensor]]:
        encoded = self._encode(batches)
        self._metrics.embedded(encoded.real_tokens, encoded.computed_tokens)
        ends = np.cumsum([len(input_ids) for input_ids, _ in batches])[:-1]
        return [[pb_utils.Tensor(EMBEDDING, rows)] for rows in np.split(encoded.vectors, ends)]


def _read(request: pb_utils.InferenceRequest) -> Padded:
    input_ids, attention_mask = array_of(request, INPUT_IDS), array_of(request, ATTENTION_MASK)
    if input_ids is None or attention_mask is None:
        raise BadRequestError(f"{INPUT_IDS} or {ATTENTION_MASK} is missing; send both")
    return input_ids, attention_mask


def _open(settings: Settings, *, device_id: int | None) -> Encode:
    """Raises BadRequestError where the settings want a GPU and Triton gave none."""
    execution = settings.encoder.execution
    if execution == "cpu" or (execution == "auto" and device_id is None):
        return _on_cpu(settings)
    if device_id is None:
        raise BadRequestError(
            f"TRITONRAG_ENCODER_EXECUTION is {execution}, and this server has no GPU for the encoder; set it to cpu or auto"
        )
    encoder = settings.encoder
    place = GpuPlace(execution=execution, device_id=device_id, cache_dir=encoder.cache_dir, buckets=encoder.buckets)
    return PaddedEncoder.open(settings.embedder.model, place).encode


def _on_cpu(settings: Settings) -> Encode:
    embedder = settings.embedder
    encoder = Encoder.open(embedder.model, precision=embedder.precision, threads=embedder.threads)

    def encode(batches: list[Padded]) -> EmbeddedTexts:
        return encoder.encode_ids([ids for input_ids, mask in batches for ids in trim(input_ids, mask)])

    return encode
