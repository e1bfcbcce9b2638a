"""The padded encoder: batches of one length share a run, and ONNX Runtime is never let down to a slower place in silence.

No GPU is here: a small graph with the tensors of `encoder.fp16.onnx` runs on the CPU in its stead.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tritonrag_backends.embedding import padded
from tritonrag_backends.embedding.buckets import Buckets, pad
from tritonrag_backends.embedding.format import ENCODER_FILE, EmbedderManifest, Parity
from tritonrag_backends.embedding.padded import GpuPlace, PaddedEncoder, open_padded_session, provider_options
from tritonrag_backends.embedding.tensorrt_options import cache_folder, engine_options, make_cache
from tritonrag_backends.model_folder import record_file
from tritonrag_client.contract import MAX_BATCH
from tritonrag_client.errors import BadRequestError, NotFoundError

CPU = [("CPUExecutionProvider", {})]
TEXTS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=12), min_size=1, max_size=5)


def save_graph(path: Path) -> Path:
    """`embedding` [batch, 2]: the sum of a text's ids, and the number of its tokens."""
    shape = ["batch", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name in ("input_ids", "attention_mask")]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["real"]),
        helper.make_node("ReduceSum", ["real", "axis"], ["sum"]),
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["count"]),
        helper.make_node("Concat", ["sum", "count"], ["both"], axis=1),
        helper.make_node("Cast", ["both"], ["embedding"], to=TensorProto.FLOAT),
    ]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "toy", inputs, [output], [axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def make_embedder(folder: Path) -> EmbedderManifest:
    save_graph(folder / ENCODER_FILE)
    manifest = EmbedderManifest(
        name="toy",
        architecture="none",
        dim=2,
        max_tokens=16,
        pooling="mean",
        fingerprint="f" * 64,
        files={ENCODER_FILE: record_file(folder / ENCODER_FILE)},
        parity=Parity(texts=1, fp32_max_abs_difference=0.0, int8_min_cosine=1.0, int8_mean_cosine=1.0),
    )
    manifest.save(folder)
    return manifest


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PaddedEncoder:
    return PaddedEncoder(open_padded_session(save_graph(tmp_path_factory.mktemp("graph") / "toy.onnx"), CPU))


def place(tmp_path: Path, execution: padded.GpuExecution) -> GpuPlace:
    return GpuPlace(execution=execution, device_id=1, cache_dir=tmp_path / "cache", buckets="4,8")


class Sessions:
    """Stands in for ONNX Runtime where GPUs are: remembers what was asked for, opens what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, available: Sequence[str], broken: Sequence[str] = ()) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._broken = broken
        monkeypatch.setattr(padded.ort, "get_available_providers", lambda: list(available))
        monkeypatch.setattr(padded, "open_padded_session", self._open)

    def _open(self, model: Path, providers: Sequence[padded.Provider]) -> Any:
        self.asked = [(name, dict(options)) for name, options in providers]
        session = open_padded_session(model, CPU)
        opened = [name for name, _ in providers if name not in self._broken]
        session.get_providers = lambda: opened
        return session


@settings(deadline=None)
@given(batches=st.lists(st.tuples(TEXTS, st.sampled_from([12, 16])), min_size=1, max_size=5))
def test_every_row_is_that_of_its_text_whatever_runs_with_it(
    encoder: PaddedEncoder, batches: list[tuple[list[list[int]], int]]
) -> None:
    encoded = encoder.encode([pad(ids, length) for ids, length in batches])
    texts = [text for ids, _ in batches for text in ids]
    assert encoded.vectors.tolist() == [[sum(text), len(text)] for text in texts]
    assert encoded.real_tokens == sum(map(len, texts))
    assert encoded.computed_tokens == sum(len(ids) * length for ids, length in batches)


def test_more_texts_than_an_engine_is_built_for_take_several_runs(encoder: PaddedEncoder) -> None:
    texts = [[number + 1] for number in range(2 * MAX_BATCH + 1)]
    assert encoder.encode([pad(texts, 2)]).vectors[:, 0].tolist() == [number + 1 for number in range(2 * MAX_BATCH + 1)]


def test_a_mask_that_is_no_texts_is_refused(encoder: PaddedEncoder) -> None:
    with pytest.raises(BadRequestError, match="attention_mask"):
        encoder.encode([(np.ones((1, 2), np.int32), np.array([[0, 1]], np.int32))])


def test_tensorrt_comes_before_cuda_and_keeps_its_engines_by_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_embedder(tmp_path)
    sessions = Sessions(monkeypatch, [padded._TENSORRT, padded._CUDA, "CPUExecutionProvider"])
    PaddedEncoder.open(tmp_path, place(tmp_path, "auto"))
    assert [name for name, _ in sessions.asked] == [padded._TENSORRT, padded._CUDA, "CPUExecutionProvider"]
    options = sessions.asked[0][1]
    cache = cache_folder(tmp_path / "cache", manifest)
    assert cache.is_dir()
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(cache)
    assert options["device_id"] == sessions.asked[1][1]["device_id"] == "1"
    assert options["trt_fp16_enable"] == "1"


def test_cuda_alone_makes_no_folder_for_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_embedder(tmp_path)
    sessions = Sessions(monkeypatch, [padded._TENSORRT, padded._CUDA])
    PaddedEncoder.open(tmp_path, place(tmp_path, "cuda"))
    assert [name for name, _ in sessions.asked] == [padded._CUDA, "CPUExecutionProvider"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("execution", "missing"), [("auto", "CUDA"), ("cuda", "CUDA"), ("tensorrt", "Tensorrt")])
def test_an_onnxruntime_without_the_provider_is_refused_with_what_to_install(
    tmp_path: Path, execution: padded.GpuExecution, missing: str
) -> None:
    make_embedder(tmp_path)
    with pytest.raises(BadRequestError, match=rf"{missing}\w*.*CPUExecutionProvider.*onnxruntime-gpu"):
        PaddedEncoder.open(tmp_path, place(tmp_path, execution))


@pytest.mark.parametrize(("execution", "broken"), [("auto", padded._CUDA), ("tensorrt", padded._TENSORRT)])
def test_a_provider_whose_libraries_do_not_load_is_refused_rather_than_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, execution: padded.GpuExecution, broken: str
) -> None:
    make_embedder(tmp_path)
    Sessions(monkeypatch, [padded._TENSORRT, padded._CUDA], broken=[broken])
    with pytest.raises(BadRequestError, match=f"could not load {broken}"):
        PaddedEncoder.open(tmp_path, place(tmp_path, execution))


def test_auto_goes_on_with_cuda_where_tensorrt_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_embedder(tmp_path)
    Sessions(monkeypatch, [padded._TENSORRT, padded._CUDA], broken=[padded._TENSORRT])
    assert PaddedEncoder.open(tmp_path, place(tmp_path, "auto")).encode([pad([[5]], 4)]).vectors.tolist() == [[5, 1]]


def test_an_embedder_without_the_graph_is_refused_with_the_command(tmp_path: Path) -> None:
    manifest = make_embedder(tmp_path)
    with pytest.raises(NotFoundError, match="tritonrag export embedder --to onnx-fp16"):
        cache_folder(tmp_path, EmbedderManifest(**{**_fields(manifest), "files": {}}))


def test_another_graph_of_the_same_vector_space_has_engines_of_its_own(tmp_path: Path) -> None:
    one = make_embedder(tmp_path)
    (tmp_path / ENCODER_FILE).write_bytes(b"other")
    other = EmbedderManifest(**{**_fields(one), "files": {ENCODER_FILE: record_file(tmp_path / ENCODER_FILE)}})
    assert cache_folder(tmp_path, one) != cache_folder(tmp_path, other)


def test_the_profile_covers_every_bucket_and_batch() -> None:
    options = engine_options(Buckets.parse("16,32,64", max_tokens=256), Path("/cache"))
    assert options["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
    assert options["trt_profile_opt_shapes"] == "input_ids:16x32,attention_mask:16x32"
    assert options["trt_profile_max_shapes"] == f"input_ids:{MAX_BATCH}x256,attention_mask:{MAX_BATCH}x256"


def test_tensorrts_options_are_those_that_onnxruntime_reads() -> None:
    """The names in ONNX Runtime's documentation of the provider, and no others: a misspelt one is an error at load."""
    known = {
        "device_id", "trt_fp16_enable", "trt_engine_cache_enable", "trt_engine_cache_path", "trt_timing_cache_enable",
        "trt_timing_cache_path", "trt_layer_norm_fp32_fallback", "trt_profile_min_shapes", "trt_profile_opt_shapes",
        "trt_profile_max_shapes",
    }  # fmt: skip
    buckets = Buckets.parse("16", max_tokens=16)
    assert set(provider_options(padded._TENSORRT, 0, buckets, Path("/cache"))) == known


def test_a_folder_where_no_engine_can_be_kept_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadRequestError, match="TRITONRAG_ENCODER_CACHE_DIR"):
        make_cache(tmp_path / "file" / "cache")


def _fields(manifest: EmbedderManifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in EmbedderManifest.__dataclass_fields__}
