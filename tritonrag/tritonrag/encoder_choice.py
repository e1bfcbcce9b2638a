"""What runs `encoder` in profile gpu: one of Triton's backends, or the Python model; chosen and checked before Triton starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tritonrag.instances import Machine, encodes_on_gpus
from tritonrag_backends.embedding.buckets import Buckets
from tritonrag_backends.embedding.format import ENCODER_FILE, PLAN_FILE, EmbedderManifest
from tritonrag_backends.settings import EncoderSettings, Settings
from tritonrag_client.contract import MAX_BATCH
from tritonrag_client.errors import BadRequestError, NotFoundError

Runtime = Literal["onnxruntime", "tensorrt", "python"]
_FILES: Final = {"onnxruntime": ENCODER_FILE, "tensorrt": PLAN_FILE}
_EXPORT: Final = {"onnxruntime": "onnx-fp16", "tensorrt": "tensorrt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderChoice:
    """The runtime, and the embedder whose file it runs. `tensorrt`: whether ONNX Runtime hands the graph to TensorRT."""

    runtime: Runtime
    folder: Path
    manifest: EmbedderManifest
    buckets: Buckets
    on_gpus: bool
    tensorrt: bool
    cache_dir: Path

    @property
    def file(self) -> Path | None:
        """What one of Triton's backends loads; None where the Python model opens the folder itself."""
        return None if self.runtime == "python" else self.folder / _FILES[self.runtime]

    def describe(self) -> str:
        """In words, for `doctor`."""
        if self.runtime == "tensorrt":
            return f"{PLAN_FILE} by Triton's TensorRT backend"
        where = "on the CPU" if not self.on_gpus else "by TensorRT and CUDA" if self.tensorrt else "by CUDA"
        if self.runtime == "onnxruntime":
            return f"{ENCODER_FILE} by Triton's ONNX Runtime backend, {where}"
        return f"the Python model, {where}"


def choose_encoder(settings: Settings, machine: Machine, backends: frozenset[str]) -> EncoderChoice:
    """Choose among what Triton's `backends` and the embedder's files allow; `auto` takes the first that can run.

    Raises NotFoundError or BadRequestError, with the way out, where what the settings ask for can't run.
    """
    encoder, folder = settings.encoder, settings.embedder.model
    manifest = EmbedderManifest.load(folder, verify=False)
    buckets = Buckets.parse(encoder.buckets, max_tokens=manifest.max_tokens)
    on_gpus = encodes_on_gpus(settings, machine)
    if not on_gpus and encoder.execution in ("cuda", "tensorrt"):
        raise BadRequestError(
            f"TRITONRAG_ENCODER_EXECUTION is {encoder.execution}, and no GPU is visible; set it to auto or cpu"
        )
    if encoder.runtime != "auto":
        runtime: Runtime = encoder.runtime
        _require_runnable(runtime, folder, manifest, buckets, backends, on_gpus=on_gpus)
    else:
        runtime = _first_runnable(encoder, folder, manifest, buckets, backends, on_gpus=on_gpus)
    if runtime != "python":
        manifest.verify(folder, (_FILES[runtime],))
    elif on_gpus and not (folder / ENCODER_FILE).is_file():
        raise NotFoundError(
            f"the embedder in {folder} lacks its file {ENCODER_FILE}, which runs on a GPU; write it with: tritonrag export"
            f" embedder --to {_EXPORT['onnxruntime']}, or set TRITONRAG_ENCODER_EXECUTION to cpu"
        )
    return EncoderChoice(
        runtime=runtime,
        folder=folder,
        manifest=manifest,
        buckets=buckets,
        on_gpus=on_gpus,
        tensorrt=on_gpus and encoder.execution != "cuda",
        cache_dir=encoder.cache_dir,
    )


def _first_runnable(
    encoder: EncoderSettings,
    folder: Path,
    manifest: EmbedderManifest,
    buckets: Buckets,
    backends: frozenset[str],
    *,
    on_gpus: bool,
) -> Runtime:
    """Without a GPU the Python model: its int8 graph is what a CPU runs best."""
    candidates: tuple[Runtime, ...] = ()
    if on_gpus:
        candidates = ("onnxruntime",) if encoder.execution == "cuda" else ("tensorrt", "onnxruntime")
    for runtime in candidates:
        try:
            _require_runnable(runtime, folder, manifest, buckets, backends, on_gpus=on_gpus)
        except (NotFoundError, BadRequestError):
            continue
        return runtime
    return "python"


def _require_runnable(
    runtime: Runtime,
    folder: Path,
    manifest: EmbedderManifest,
    buckets: Buckets,
    backends: frozenset[str],
    *,
    on_gpus: bool,
) -> None:
    """Raises NotFoundError or BadRequestError where the backend, the file or what the file was made for is wrong."""
    if runtime == "python":
        return
    if runtime not in backends:
        raise NotFoundError(
            f"TRITONRAG_ENCODER_RUNTIME is {runtime}, and this Triton has no such backend (it has {', '.join(sorted(backends))});"
            " serve from NVIDIA's image, or set it to python"
        )
    if not (folder / _FILES[runtime]).is_file():
        raise NotFoundError(
            f"the embedder in {folder} lacks its file {_FILES[runtime]}; write it with: tritonrag export embedder --to"
            f" {_EXPORT[runtime]}, or set TRITONRAG_ENCODER_RUNTIME to auto"
        )
    if runtime == "tensorrt":
        _require_fitting_plan(folder, manifest, buckets, on_gpus=on_gpus)


def _require_fitting_plan(folder: Path, manifest: EmbedderManifest, buckets: Buckets, *, on_gpus: bool) -> None:
    if not on_gpus:
        raise BadRequestError(
            "TRITONRAG_ENCODER_RUNTIME is tensorrt, and the encoder has no GPU; set it to python, or"
            " TRITONRAG_ENCODER_EXECUTION to auto where a GPU is"
        )
    plan = manifest.plan
    if plan is None or plan.max_batch < MAX_BATCH or max(plan.buckets) < buckets.longest:
        built = "is not recorded" if plan is None else f"is for {plan.max_batch} texts of {max(plan.buckets)} tokens"
        raise BadRequestError(
            f"{PLAN_FILE} in {folder} {built}, and the encoder needs {MAX_BATCH} texts of {buckets.longest} tokens;"
            " build it again with: tritonrag export embedder --to tensorrt"
        )
