"""Profile gpu as these measurements serve it: the encoder in Python, on the GPU where ONNX Runtime can, and nothing remembered."""

from typing import Any, Final

import onnxruntime as ort

from tritonrag.admin_key import MEASURING_APIS
from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.index.gpu.faiss_gpu import count_gpus
from tritonrag_backends.settings import EmbedderSettings, EncoderSettings, RetrieverSettings, Settings
from tritonrag_perf.gpu.part import Run
from tritonrag_perf.gpu.sheet import Device

_CUDA: Final = "CUDAExecutionProvider"


def encoder_device(run: Run) -> Device:
    """Where the encoder runs: on the GPU, where nothing else is asked for and ONNX Runtime can."""
    if run.wishes.encoder_on is not None:
        return run.wishes.encoder_on
    return "cuda" if run.device == "cuda" and _CUDA in ort.get_available_providers() else "cpu"


def gpu_options(run: Run, **more: Any) -> ServeOptions:  # noqa: ANN401 - sections of the settings
    """Profile gpu over the run's index. Questions asked twice are work twice. The record says what does not run on the GPU."""
    execution, on_gpu = encoder_device(run), run.device == "cuda" and count_gpus() > 0
    if run.device == "cuda" and execution == "cpu":
        run.sheet.note(
            "The encoder ran on the CPU: the installed ONNX Runtime is not onnxruntime-gpu, or it was asked for."
        )
    if run.device == "cuda" and not on_gpu:
        run.sheet.note("The index was searched on the CPU: the installed FAISS sees no GPU.")
    settings = Settings(
        index=run.index,
        embedder=EmbedderSettings(model=run.embedder),
        encoder=EncoderSettings(runtime="python", execution=execution, cache_dir=run.work / "tensorrt", instances=1),
        retriever=RetrieverSettings(cache_bytes=0, device="gpu" if on_gpu else "auto"),
        **more,
    )
    return ServeOptions(
        settings=settings, profile="gpu", ready_timeout_s=max(30.0, run.left_s), open_apis=MEASURING_APIS
    )


def check_nothing_left(run: Run, server: TritonServer) -> None:
    """Once it is stopped: no process, port, shared memory or folder of it is there."""
    left = server.check_left_behind()
    run.sheet.check("what is left of Triton when it is stopped", ok=not left, found=left or "nothing", wanted="nothing")
