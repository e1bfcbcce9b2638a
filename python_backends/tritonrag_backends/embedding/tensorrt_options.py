"""What ONNX Runtime is told so that TensorRT builds, keeps and finds the engine of `encoder.fp16.onnx`. Pure functions.

The names are those of ONNX Runtime's TensorRT execution provider; Triton's ONNX Runtime backend takes the same ones but for
the precision, which it calls `precision_mode` (its README has the table).

One optimisation profile covers all shapes. The provider would read a profile for each bucket, by repeating the inputs' names,
but it runs every batch on the first one and fails on shapes outside of it (microsoft/onnxruntime pull request 31624, open in
September 2026). A plan of ours, which Triton's TensorRT backend runs, has a profile for each bucket.
"""

from pathlib import Path
from typing import Final

from tritonrag_backends.embedding.buckets import Buckets
from tritonrag_backends.embedding.format import ENCODER_FILE, EmbedderManifest
from tritonrag_client.contract import ATTENTION_MASK, INPUT_IDS, MAX_BATCH
from tritonrag_client.errors import BadRequestError, NotFoundError

# What TensorRT tunes for: questions are short, and under load some of them come together.
_TUNED_BATCH: Final = 16
_TUNED_TOKENS: Final = 32


def engine_options(buckets: Buckets, cache: Path) -> dict[str, str]:
    """Profile and caches, as Triton's ONNX Runtime backend and ONNX Runtime's own provider both name them."""
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        # The graph's layer norms are FP32 already, by casts; this keeps TensorRT from fusing them back into FP16.
        "trt_layer_norm_fp32_fallback": "1",
        "trt_profile_min_shapes": _shapes(1, 1),
        "trt_profile_opt_shapes": _shapes(_TUNED_BATCH, buckets.fit(min(_TUNED_TOKENS, buckets.longest))),
        "trt_profile_max_shapes": _shapes(MAX_BATCH, buckets.longest),
    }


def cache_folder(root: Path, manifest: EmbedderManifest) -> Path:
    """Where the engines of this graph lie below `root`. Raises NotFoundError where the embedder has no such graph.

    The graph's own digest stands in the name beside the vector space's: an exporter of another version may write another graph.
    ONNX Runtime puts the GPU's compute capability into the names of its files.
    """
    record = manifest.files.get(ENCODER_FILE)
    if record is None:
        raise NotFoundError(
            f"the embedder {manifest.name} has no {ENCODER_FILE}; write it with: tritonrag export embedder --to onnx-fp16"
        )
    return root.absolute() / f"{manifest.fingerprint[:12]}-{record.sha256[:12]}"


def make_cache(folder: Path) -> None:
    """Make the folder. Raises BadRequestError, which names the setting, where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadRequestError(
            f"TensorRT's engines can't be kept in {folder} ({error.strerror}); set TRITONRAG_ENCODER_CACHE_DIR to a folder where"
            " the server may write"
        ) from error


def _shapes(batch: int, tokens: int) -> str:
    return ",".join(f"{name}:{batch}x{tokens}" for name in (INPUT_IDS, ATTENTION_MASK))
