"""The encoder in every way that this machine can run it: padded batches of token ids in, unit vectors out."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from tritonrag_backends.embedding.buckets import Buckets, Int32Array
from tritonrag_backends.embedding.format import ENCODER_FILE, EmbedderManifest
from tritonrag_backends.embedding.padded import GpuExecution, GpuPlace, PaddedEncoder, open_padded_session
from tritonrag_backends.embedding.session import Float32Array
from tritonrag_backends.settings import EncoderSettings
from tritonrag_client.errors import BadRequestError
from tritonrag_export.embedder.source import find_default_source
from tritonrag_perf.gpu.roofline import BertShape
from tritonrag_perf.gpu.sheet import Device

Encode = Callable[[Int32Array, Int32Array], Float32Array]

TENSORRT: Final = "TensorrtExecutionProvider"
_CPU: Final = "CPUExecutionProvider"
_GPU_RUNS: Final[tuple[tuple[GpuExecution, str], ...]] = (
    ("cuda", "CUDAExecutionProvider"),
    ("tensorrt", TENSORRT),
)


def runtimes(
    embedder: Path, device: Device, cache: Path, note: Callable[[str], None]
) -> Iterator[tuple[str, Callable[[], Encode]]]:
    """Names, and what opens each: ours by ONNX Runtime on each provider that there is, then the same weights in torch.

    `note` is told what can't be had here.
    """
    if device == "cpu":
        yield "ONNX Runtime, CPU, encoder.fp16.onnx", functools.partial(_on_cpu, embedder)
    else:
        available = ort.get_available_providers()
        for execution, provider in _GPU_RUNS:
            if provider in available:
                opening = functools.partial(_on_gpu, embedder, execution, cache)
                yield f"ONNX Runtime, {provider}, encoder.fp16.onnx", opening
            else:
                note(f"not run: ONNX Runtime's {provider}, which the installed build has not")
    half = "fp16" if device == "cuda" else "fp32"
    yield f"torch {half}, transformers' BertModel with the same weights", functools.partial(_in_torch, embedder, device)


def read_shape(embedder: Path) -> BertShape:
    """The sizes of the packaged model. Raises BadRequestError where the embedder is another one."""
    config = json.loads((_source(embedder) / "config.json").read_text(encoding="utf-8"))
    return BertShape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        max_tokens=EmbedderManifest.load(embedder, verify=False).max_tokens,
    )


def _source(embedder: Path) -> Path:
    """Where the embedder's weights lie as their author published them: torch reads those, not our graphs."""
    source, manifest = find_default_source(), EmbedderManifest.load(embedder, verify=False)
    if manifest.pooling != "mean" or manifest.architecture != "BertModel":
        raise BadRequestError(
            f"{embedder} holds {manifest.name}; this measurement compares with the packaged all-MiniLM-L6-v2: leave --embedder out"
        )
    return source


def _on_cpu(embedder: Path) -> Encode:
    session = open_padded_session(embedder / ENCODER_FILE, [(_CPU, {})])
    return lambda ids, mask: np.asarray(session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0])


def _on_gpu(embedder: Path, execution: GpuExecution, cache: Path) -> Encode:
    preload: Callable[[], None] = getattr(ort, "preload_dlls", lambda: None)
    preload()  # finds CUDA and cuDNN in NVIDIA's wheels, which no loader's path names
    place = GpuPlace(execution=execution, device_id=0, cache_dir=cache, buckets=EncoderSettings().buckets)
    encoder = PaddedEncoder.open(embedder, place)
    return lambda ids, mask: encoder.encode([(ids, mask)]).vectors


def _in_torch(embedder: Path, device: Device) -> Encode:
    """Mean pooling and normalisation in FP32, as in our graph."""
    import torch  # noqa: PLC0415 - loads only where it is measured
    from transformers import BertModel  # noqa: PLC0415

    dtype = torch.float16 if device == "cuda" else torch.float32
    model: Any = BertModel.from_pretrained(_source(embedder), add_pooling_layer=False)
    model = model.to(device=device, dtype=dtype).eval()

    def encode(ids: Int32Array, mask: Int32Array) -> Float32Array:
        with torch.inference_mode():
            tokens, real = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (ids, mask))
            hidden = model(input_ids=tokens, attention_mask=real).last_hidden_state.float()
            weights = real[:, :, None].float()
            means = (hidden * weights).sum(1) / weights.sum(1)
            return np.asarray(torch.nn.functional.normalize(means, dim=1).cpu().numpy(), np.float32)

    return encode


def buckets_of(embedder: Path) -> Buckets:
    """The lengths to which texts are padded, as the settings have them."""
    return Buckets.parse(EncoderSettings().buckets, max_tokens=EmbedderManifest.load(embedder, verify=False).max_tokens)
