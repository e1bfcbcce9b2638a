"""On what a test runs: the CPU everywhere, and a GPU, under the mark, where one is with the library for it."""

import importlib.util
from typing import Any

import faiss
import onnxruntime as ort
import pytest

from tritonrag.gpus import count_gpus
from tritonrag_backends.index.gpu import faiss_gpu

GPUS = count_gpus()
NO_GPU = "there is no NVIDIA GPU"


def without(reason: str, *, there: bool) -> list[pytest.MarkDecorator]:
    """Marks of a test that needs a GPU and something beside it."""
    return [
        pytest.mark.gpu,
        pytest.mark.skipif(GPUS == 0, reason=NO_GPU),
        pytest.mark.skipif(not there, reason=reason),
    ]


NEEDS_FAISS = without(
    f"the installed FAISS ({faiss.get_compile_options().strip()}) sees no GPU: install faiss-gpu-cuvs",
    there=faiss_gpu.count_gpus() > 0,
)
NEEDS_TORCH = without("torch is not installed", there=importlib.util.find_spec("torch") is not None)


def needs_provider(name: str) -> list[pytest.MarkDecorator]:
    """Marks of a test that needs an execution provider of ONNX Runtime."""
    reason = f"the installed ONNX Runtime has no {name}: install onnxruntime-gpu"
    return without(reason, there=name in ort.get_available_providers())


def on_gpu(name: str, marks: list[pytest.MarkDecorator]) -> Any:
    """A parameter that runs on a GPU."""
    return pytest.param(name, marks=marks)
