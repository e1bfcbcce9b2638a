"""`encoder.fp16.onnx` on a GPU by ONNX Runtime in this process: what `encoder` runs where Triton has no backend for it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnxruntime as ort

from tritonrag_backends.embedding.buckets import Buckets, Int32Array, check_padding
from tritonrag_backends.embedding.encoder import EmbeddedTexts
from tritonrag_backends.embedding.format import ENCODER_FILE, EmbedderManifest
from tritonrag_backends.embedding.session import Float32Array
from tritonrag_backends.embedding.tensorrt_options import cache_folder, engine_options, make_cache
from tritonrag_client.contract import ATTENTION_MASK, EMBEDDING, INPUT_IDS, MAX_BATCH
from tritonrag_client.errors import BadRequestError

_LOG = logging.getLogger(__name__)
_TENSORRT: Final = "TensorrtExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"

GpuExecution = Literal["auto", "cuda", "tensorrt"]
Provider = tuple[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPlace:
    """Where and how to compute. `device_id` is CUDA's number of the GPU; the others are settings of the encoder."""

    execution: GpuExecution
    device_id: int
    cache_dir: Path
    buckets: str


class PaddedEncoder:
    """The encoder on padded batches of token ids. One per process and GPU."""

    def __init__(self, session: ort.InferenceSession) -> None:
        """Use `PaddedEncoder.open`."""
        self._session = session

    @classmethod
    def open(cls, directory: Path, place: GpuPlace) -> "PaddedEncoder":
        """Open the folder's FP16 graph on a GPU, and hold it to its SHA-256.

        Raises NotFoundError where there is no such graph, BadRequestError where ONNX Runtime can't compute as wanted.
        """
        manifest = EmbedderManifest.load(directory, verify=False)
        cache = cache_folder(place.cache_dir, manifest)
        manifest.verify(directory, (ENCODER_FILE,))
        wanted = _wanted(place.execution, ort.get_available_providers())
        if _TENSORRT in wanted:
            make_cache(cache)
        buckets = Buckets.parse(place.buckets, max_tokens=manifest.max_tokens)
        providers = [(name, provider_options(name, place.device_id, buckets, cache)) for name in wanted]
        session = open_padded_session(directory / ENCODER_FILE, [*providers, (_CPU, {})])
        _require_providers(session.get_providers(), place.execution)
        encoder = cls(session)
        encoder.warm_up(buckets)
        return encoder

    def warm_up(self, buckets: Buckets) -> None:
        """Run each bucket with one text and with as many as there may be: engines are built and memory is taken now, not later."""
        for length in buckets.lengths:
            for texts in (1, MAX_BATCH):
                self._run(np.zeros((texts, length), np.int32), np.ones((texts, length), np.int32))

    def encode(self, batches: Sequence[tuple[Int32Array, Int32Array]]) -> EmbeddedTexts:
        """Embed padded batches (`input_ids`, `attention_mask`), INT32 [texts, tokens] each, into rows in their order.

        Batches of one length run together. Raises BadRequestError where a mask is not ones and then zeros.
        """
        for input_ids, attention_mask in batches:
            check_padding(input_ids, attention_mask)
        rows: dict[int, Float32Array] = {}
        for length in {ids.shape[1] for ids, _ in batches}:
            alike = [number for number, (ids, _) in enumerate(batches) if ids.shape[1] == length]
            together = [np.concatenate([batches[number][part] for number in alike]) for part in (0, 1)]
            ends = np.cumsum([len(batches[number][0]) for number in alike])[:-1]
            rows.update(zip(alike, np.split(self._run(*together), ends), strict=True))
        return EmbeddedTexts(
            vectors=np.concatenate([rows[number] for number in range(len(batches))]),
            real_tokens=int(sum(mask.sum() for _, mask in batches)),
            computed_tokens=sum(mask.size for _, mask in batches),
            truncated=0,
        )

    def _run(self, input_ids: Int32Array, attention_mask: Int32Array) -> Float32Array:
        """In calls of at most MAX_BATCH texts: TensorRT's engine is built for no more."""
        runs = [slice(start, start + MAX_BATCH) for start in range(0, len(input_ids), MAX_BATCH)]
        parts = [
            self._session.run([EMBEDDING], {INPUT_IDS: input_ids[run], ATTENTION_MASK: attention_mask[run]})[0]
            for run in runs
        ]
        return np.ascontiguousarray(np.concatenate(parts), np.float32)


def open_padded_session(model: Path, providers: Sequence[Provider]) -> ort.InferenceSession:
    """An ONNX Runtime session that tries the providers in their order."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    names, values = [name for name, _ in providers], [dict(options) for _, options in providers]
    return ort.InferenceSession(str(model), options, providers=names, provider_options=values)


def provider_options(provider: str, device_id: int, buckets: Buckets, cache: Path) -> dict[str, str]:
    """The options of one of the GPU's providers."""
    device = {"device_id": str(device_id)}
    if provider == _TENSORRT:
        return {**device, "trt_fp16_enable": "1", **engine_options(buckets, cache)}
    return device


def _wanted(execution: GpuExecution, available: Sequence[str]) -> list[str]:
    """The providers to try, the best first; CUDA runs what TensorRT refuses."""
    least = _TENSORRT if execution == "tensorrt" else _CUDA
    if least not in available:
        raise BadRequestError(
            f"the encoder is to run by {least}, and the installed onnxruntime has {', '.join(available)};"
            " install onnxruntime-gpu in place of onnxruntime, or set TRITONRAG_ENCODER_EXECUTION to cpu"
        )
    return [
        name for name in (_TENSORRT, _CUDA) if name in available and not (name == _TENSORRT and execution == "cuda")
    ]


def _require_providers(opened: Sequence[str], execution: GpuExecution) -> None:
    """ONNX Runtime leaves out in silence a provider whose libraries it can't load."""
    least = _TENSORRT if execution == "tensorrt" else _CUDA
    if least not in opened:
        raise BadRequestError(
            f"ONNX Runtime could not load {least} (its log says which library is missing); install what it needs, or set"
            f" TRITONRAG_ENCODER_EXECUTION to {'cuda' if execution == 'tensorrt' else 'cpu'}"
        )
    _LOG.info("the encoder runs by %s", opened[0])
