"""`encoder.fp16.onnx` gives the vectors of the CPU's FP32 graph, whatever runs it and whatever shares its batch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from devices import NEEDS_TORCH, needs_provider, on_gpu

from tritonrag_backends.embedding.buckets import Buckets, pad
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.settings import EncoderSettings
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.gpu.encoder_runtimes import TENSORRT, Encode, runtimes

pytestmark = pytest.mark.timeout(1200)  # TensorRT builds an engine first

LEAST_COSINE = 0.999
TEXTS = (
    "How do I parse a JSON document?",
    ".",
    "a",
    "🙂🙃 🧪 👩‍👩‍👧",
    "Wie öffne ich eine Datei? 如何打开文件",
    "heapq " * 15 + "merge",
    "csv reader with a header " * 12,
    "word " * 400,  # longer than the model reads
)

# By a part of the runtime's name: ours by each provider of ONNX Runtime, and the same weights in torch.
RUNTIMES = [
    "ONNX Runtime, CPU",
    "torch fp32",
    on_gpu("CUDAExecutionProvider", needs_provider("CUDAExecutionProvider")),
    on_gpu(TENSORRT, needs_provider(TENSORRT)),
    on_gpu("torch fp16", NEEDS_TORCH),
]


@pytest.fixture(scope="module")
def reference(gpu_embedder_dir: Path) -> Encoder:
    return Encoder.open(gpu_embedder_dir, precision="fp32")


@pytest.fixture(scope="module", params=RUNTIMES)
def encode(request: pytest.FixtureRequest, gpu_embedder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Encode:
    device = "cpu" if request.param in RUNTIMES[:2] else "cuda"
    missing: list[str] = []
    cache = tmp_path_factory.mktemp("tensorrt")
    there: dict[str, Callable[[], Encode]] = dict(runtimes(gpu_embedder_dir, device, cache, missing.append))
    (name,) = (name for name in there if request.param in name)
    try:
        return there[name]()
    except BadRequestError as error:
        if request.param == TENSORRT and "could not load" in error.message:
            pytest.skip(f"TensorRT is not installed: {error}")
        raise


def padded(encode: Encode, ids: list[list[int]], length: int) -> np.ndarray:
    return encode(*pad(ids, length))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", one.astype(np.float64), other.astype(np.float64))


def test_vectors_are_the_cpus_in_every_bucket_alone_and_together(encode: Encode, reference: Encoder) -> None:
    ids = [list(text) for text in reference.tokenize(TEXTS).ids]
    expected = reference.encode(TEXTS).vectors
    buckets = Buckets.parse(EncoderSettings().buckets, max_tokens=reference.max_tokens)
    alone = np.concatenate([padded(encode, [text], buckets.fit(len(text))) for text in ids])
    together = padded(encode, ids, buckets.longest)
    for found in (alone, together):
        assert found.dtype == np.float32
        assert cosines(found, expected).min() >= LEAST_COSINE
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)


def test_a_text_keeps_its_vector_in_any_company_and_any_place_of_a_full_batch(
    encode: Encode, reference: Encoder
) -> None:
    ids = [list(text) for text in reference.tokenize(TEXTS[:6]).ids]
    full = [ids[number % len(ids)] for number in range(64)]
    found = padded(encode, full, 64)
    expected, order = reference.encode(TEXTS[:6]).vectors, [number % len(ids) for number in range(64)]
    assert cosines(found, expected[order]).min() >= LEAST_COSINE
    assert (found @ expected.T).argmax(axis=1).tolist() == order
