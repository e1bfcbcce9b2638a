"""Exporting a model: on a tiny BERT with random weights, made here; the real one is held to golden vectors elsewhere."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file
from tiny_embedders import change, write_json, write_tiny_bert

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_backends.embedding.session import open_session
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError
from tritonrag_export.embedder import exporter, parity
from tritonrag_export.embedder.exporter import ExportOptions, export_embedder
from tritonrag_export.embedder.source import SourceModel


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tiny_bert(tmp_path / "tiny")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "embedder"


def test_an_exported_model_serves(source: Path, output: Path) -> None:
    manifest = export_embedder(source, output)
    encoder = Encoder.open(output)
    assert encoder.encode(["abc", "d"]).vectors.shape == (2, 32)
    assert (encoder.name, encoder.max_tokens, encoder.fingerprint) == ("tiny", 16, manifest.fingerprint)


def test_the_manifest_describes_every_file_and_the_parity_that_was_reached(source: Path, output: Path) -> None:
    manifest = export_embedder(source, output)
    assert EmbedderManifest.load(output) == manifest
    assert sorted(path.name for path in output.iterdir()) == sorted([*manifest.files, "embedder.json"])
    assert manifest.parity.fp32_max_abs_difference < 1e-5
    assert manifest.parity.int8_min_cosine is not None
    assert 0.97 < manifest.parity.int8_min_cosine <= 1.0 + 1e-6


def test_cls_pooling_takes_the_first_token_and_is_another_vector_space(
    source: Path, output: Path, tmp_path: Path
) -> None:
    mean = export_embedder(source, output)
    change(source / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    cls = export_embedder(source, tmp_path / "cls")  # the parity check holds it to the reference
    assert cls.pooling == "cls"
    assert cls.fingerprint != mean.fingerprint


def test_the_same_model_has_the_same_fingerprint_and_other_weights_another(source: Path, output: Path) -> None:
    first = export_embedder(source, output).fingerprint
    assert export_embedder(source, output).fingerprint == first
    weights = load_file(source / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][5, 5] += 0.5
    save_file(weights, source / "model.safetensors")
    assert export_embedder(source, output).fingerprint != first


def test_another_token_limit_is_another_vector_space(source: Path, output: Path) -> None:
    first = export_embedder(source, output).fingerprint
    change(source / "sentence_bert_config.json", max_seq_length=12)
    assert export_embedder(source, output).fingerprint != first


def test_the_same_export_twice_gives_the_same_files(source: Path, output: Path, tmp_path: Path) -> None:
    assert export_embedder(source, output).files == export_embedder(source, tmp_path / "again").files


def test_the_portable_graph_stays_within_operators_that_tensorrt_knows(source: Path, output: Path) -> None:
    export_embedder(source, output)
    model = onnx.load(output / "model.fp32.onnx")
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert "Attention" not in {node.op_type for node in model.graph.node}


def test_every_product_with_weights_is_int8(source: Path, output: Path) -> None:
    export_embedder(source, output)
    nodes = onnx.load(output / "model.int8.onnx").graph.node
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in nodes) == 2 * 6
    assert sum(node.op_type == "MatMul" for node in nodes) == 1  # pooling


def test_only_what_attention_and_activation_give_is_measured_token_by_token(source: Path, output: Path) -> None:
    export_embedder(source, output)
    nodes = onnx.load(output / "model.int8.onnx").graph.node
    products = [node for node in nodes if node.op_type == "MatMulIntegerToFloat"]
    assert sum(node.op_type == "ReduceMax" for node in nodes) == 2 * 2
    assert sum(len(node.input) == 7 for node in products) == 2 * 4, "those with a known scale take the bias along"


def test_what_stands_in_places_that_no_text_fills_does_not_matter(source: Path, output: Path) -> None:
    export_embedder(source, output)
    session = open_session(output / "model.int8.onnx", threads=1)
    grid = {"input_ids": [5, 6, 0, 7], "position_ids": [0, 1, 0, 0], "text_ids": [1, 1, 0, 2]}
    runs = []
    for unfilled in (0, 9):
        ids = np.array([grid["input_ids"]])
        ids[0, 2] = unfilled
        feed = {name: np.array([values]) for name, values in grid.items()} | {"input_ids": ids}
        runs.append(session.run(["embedding"], feed | {"text_index": np.array([1, 2])})[0])
    assert np.array_equal(runs[0], runs[1])


def test_progress_is_reported_from_start_to_end(source: Path, output: Path) -> None:
    steps: list[tuple[str, float]] = []
    export_embedder(source, output, lambda step, fraction: steps.append((step, fraction)))
    fractions = [fraction for _, fraction in steps]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)


def test_an_old_embedder_is_replaced_and_nothing_is_left_beside_it(source: Path, output: Path) -> None:
    export_embedder(source, output)
    change(source / "sentence_bert_config.json", max_seq_length=12)
    export_embedder(source, output)
    assert EmbedderManifest.load(output).max_tokens == 12
    assert [path.name for path in output.parent.iterdir()] == ["embedder"]


def test_a_folder_with_something_else_in_it_is_left_alone(source: Path, output: Path) -> None:
    output.mkdir(parents=True)
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(BadRequestError, match="is not an embedder folder"):
        export_embedder(source, output)
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]


def test_a_failed_parity_check_writes_nothing(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = exporter.build_bert

    def off_by_a_little(model: SourceModel, **options: object) -> onnx.ModelProto:
        bias = "encoder.layer.0.output.dense.bias"
        weights = {**model.weights, bias: model.weights[bias] + 1e-3 * np.eye(32, dtype=np.float32)[0]}
        return honest(dataclasses.replace(model, weights=weights), **options)

    monkeypatch.setattr(exporter, "build_bert", off_by_a_little)
    with pytest.raises(InternalError, match="fp32 graph is off by"):
        export_embedder(source, output)
    assert list(output.parent.iterdir()) == []


def test_a_model_that_does_not_bear_int8_is_refused(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "INT8_MIN_COSINE", 1.1)
    with pytest.raises(InternalError, match=r"worst cosine .* is expected: .* --no-int8"):
        export_embedder(source, output)


def test_a_model_that_does_not_bear_fp16_is_refused(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "FP16_MIN_COSINE", 1.1)
    with pytest.raises(InternalError, match=r"fp16 graph's worst cosine .* does not bear fp16; nothing was written"):
        export_embedder(source, output, options=ExportOptions(target="onnx-fp16"))
    assert list(output.parent.iterdir()) == []


def test_a_padded_graph_that_computes_nan_is_refused(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = exporter.build_padded

    def overflowing(model: SourceModel) -> onnx.ModelProto:
        bias = "encoder.layer.0.intermediate.dense.bias"
        weights = {**model.weights, bias: np.full_like(model.weights[bias], 1e5)}  # infinite in FP16
        return honest(dataclasses.replace(model, weights=weights))

    monkeypatch.setattr(exporter, "build_padded", overflowing)
    with pytest.raises(InternalError, match="fp16 graph's worst cosine"):
        export_embedder(source, output, options=ExportOptions(target="onnx-fp16"))


def test_the_padded_graph_is_what_strongly_typed_tensorrt_takes(source: Path, output: Path) -> None:
    export_embedder(source, output, options=ExportOptions(target="onnx-fp16"))
    model = onnx.shape_inference.infer_shapes(onnx.load(output / "encoder.fp16.onnx"), strict_mode=True, data_prop=True)
    half, single, int32 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    assert [(one.name, one.type.tensor_type.elem_type) for one in (*model.graph.input, *model.graph.output)] == [
        ("input_ids", int32),
        ("attention_mask", int32),
        ("embedding", single),
    ]
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    by_operator: dict[str, set[int]] = {}
    for node in model.graph.node:
        by_operator.setdefault(node.op_type, set()).add(types.get(node.output[0], single))
    assert by_operator["MatMul"] == by_operator["Gelu"] == {half}
    assert by_operator["LayerNormalization"] == by_operator["Softmax"] == by_operator["ReduceL2"] == {single}
    # Those whose shape would depend on data, and those that its ONNX parser lacks, are not among them.
    assert by_operator.keys() <= {
        "Add", "Cast", "Concat", "Div", "Equal", "Gather", "Gelu", "LayerNormalization", "MatMul", "Max", "Mul",
        "ReduceL2", "ReduceSum", "Relu", "Reshape", "Shape", "Slice", "Softmax", "Sub", "Transpose", "Unsqueeze",
    }  # fmt: skip


def test_a_row_of_padding_alone_gives_zeros_and_not_nan(source: Path, output: Path) -> None:
    export_embedder(source, output, options=ExportOptions(target="onnx-fp16"))
    session = open_session(output / "encoder.fp16.onnx", threads=1)
    ids, mask = np.array([[5, 6, 7], [0, 0, 0]], np.int32), np.array([[1, 1, 1], [0, 0, 0]], np.int32)
    (vectors,) = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0], abs=1e-6)


def test_what_stands_in_the_padding_does_not_matter(source: Path, output: Path) -> None:
    export_embedder(source, output, options=ExportOptions(target="onnx-fp16"))
    session = open_session(output / "encoder.fp16.onnx", threads=1)
    mask = np.array([[1, 1, 0, 0]], np.int32)
    runs = [
        session.run(["embedding"], {"input_ids": np.array([[5, 6, *padding]], np.int32), "attention_mask": mask})[0]
        for padding in ((0, 0), (9, 30))
    ]
    assert np.array_equal(runs[0], runs[1])


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def setting(name: str, **fields: object) -> Callable[[Path], None]:
    return lambda folder: change(folder / name, **fields)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_a_missing_file_is_named(source: Path, output: Path, name: str) -> None:
    remove(name)(source)
    with pytest.raises(NotFoundError, match=f"lacks {name}"):
        export_embedder(source, output)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (setting("config.json", architectures=["LlamaModel"]), "architecture is LlamaModel; supported: BertModel"),
        (setting("config.json", architectures=None), "architecture is none; supported: BertModel"),
        (setting("config.json", hidden_act="swish"), "hidden_act is 'swish'; supported: gelu,"),
        (setting("config.json", position_embedding_type="relative_key"), "position_embedding_type is 'relative_key'"),
        (setting("config.json", hidden_size=64), "holds .* config.json asks for"),
        (setting("1_Pooling/config.json", pooling_mode_mean_tokens=False), r"pooling is \[\]"),
        (setting("1_Pooling/config.json", pooling_mode_max_tokens=True), "pooling_mode_max_tokens"),
        (setting("sentence_bert_config.json", max_seq_length=2), "max_seq_length is 2; it must lie between 3 and"),
        (setting("sentence_bert_config.json", max_seq_length=25), "max_seq_length is 25"),
        (setting("sentence_bert_config.json", do_lower_case=True), "do_lower_case"),
        (lambda folder: write_json(folder / "modules.json", [{"type": "a.b.Dense"}]), "has a Dense module"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is not a JSON object"),
        (lambda folder: (folder / "config.json").write_text('{"architectures": ["BertModel"]}'), "lacks 'hidden_size'"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 100), "can't be read"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_reason(
    source: Path, output: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(source)
    with pytest.raises(BadRequestError, match=message):
        export_embedder(source, output)
    assert not output.exists()


def test_serving_imports_neither_torch_nor_transformers_nor_onnx() -> None:
    modules = {"torch", "transformers", "onnx", "safetensors"}
    code = f"import sys, tritonrag_backends.embedding.encoder; print({modules} & {{*sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
