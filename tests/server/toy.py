"""A model repository of toy models: `wait` sleeps as many seconds as it is told, `broken` does not load.

And folders that `tritonrag serve` takes for an embedding model and an index, so that the command can be tested with them.
"""

import json
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritonrag_backends.embedding.format import EmbedderManifest, Parity
from tritonrag_client.contract import EMBEDDER, RAG, RETRIEVE, RETRIEVER, InputType, Passage
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_export.indexing import build_index

CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "seconds" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "slept" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 2 } ]
"""

WAIT = """
import os
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self.sleep(request)]) for request in requests]

    def sleep(self, request):
        seconds = pb_utils.get_input_tensor_by_name(request, "seconds").as_numpy()
        with open(os.path.join(os.path.dirname(__file__), "begun"), "a") as begun:
            begun.write("x")
        time.sleep(float(seconds[0]))
        return pb_utils.Tensor("slept", seconds)
"""

BROKEN = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        raise {error}
"""

CODED = 'pb_utils.TritonModelException("not_found: the index directory /data/index is missing; build one")'
PLAIN = 'ValueError("no such thing")'


def make_repository(folder: Path, *, error: str = CODED) -> Path:
    """What `serve` loads is `wait` by other names."""
    sources = dict.fromkeys(("wait", RAG, RETRIEVE, RETRIEVER, EMBEDDER), WAIT) | {"broken": BROKEN.format(error=error)}
    for name, source in sources.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(CONFIG)
        (folder / name / "1" / "model.py").write_text(source)
    return folder


def make_embedder(folder: Path, *, fingerprint: str = "f" * 64) -> Path:
    folder.mkdir()
    for name in ("model.int8.onnx", "model.fp32.onnx"):
        (folder / name).touch()
    EmbedderManifest(
        name="toy",
        architecture="none",
        dim=2,
        max_tokens=8,
        pooling="mean",
        fingerprint=fingerprint,
        files={},
        parity=Parity(texts=1, fp32_max_abs_difference=0.0, int8_min_cosine=1.0, int8_mean_cosine=1.0),
    ).save(folder)
    return folder


class _ToyEncoder:
    """Every text has the same vector."""

    name, dim, precision, max_tokens = "toy", 2, "int8", 8

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def encode(self, texts: Sequence[str], *, input_type: InputType = "query") -> "_Embedded":  # noqa: ARG002
        return _Embedded(vectors=np.tile(np.array([[1, 0]], np.float32), (len(texts), 1)))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [1 for _ in texts]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


@dataclass(frozen=True)
class _Embedded:
    vectors: np.ndarray
    truncated: int = 0


def make_index(folder: Path, *, fingerprint: str = "f" * 64) -> Path:
    passage = Passage(text="text", title="title", uri="uri", start=0, end=4)
    build_index([DocumentPassages(id="uri", tenant=None, passages=(passage,))], [_ToyEncoder(fingerprint)], folder)
    return folder


def begun(repository: Path, model: str = "wait") -> int:
    """How many requests have reached the model."""
    file = repository / model / "1" / "begun"
    return file.stat().st_size if file.exists() else 0


def sleep_for(http_url: str, seconds: float, model: str = "wait") -> float:
    """Ask the model to sleep; how long it says that it slept."""
    body = json.dumps({"inputs": [{"name": "seconds", "datatype": "FP32", "shape": [1], "data": [seconds]}]}).encode()
    request = urllib.request.Request(f"{http_url}/v2/models/{model}/infer", data=body, method="POST")
    with urllib.request.urlopen(request, timeout=60) as response:
        slept: float = json.load(response)["outputs"][0]["data"][0]
        return slept
