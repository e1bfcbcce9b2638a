"""The embedder folder: what it says survives the disk, and damage is told apart from absence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import MANIFEST_FILE, EmbedderManifest, Parity
from tritonrag_backends.model_folder import record_file
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    (tmp_path / "model.int8.onnx").write_bytes(b"onnx")
    manifest = EmbedderManifest(
        name="tiny",
        architecture="BertModel",
        dim=8,
        max_tokens=32,
        pooling="mean",
        fingerprint="ab" * 32,
        files={name: record_file(tmp_path / name) for name in ("tokenizer.json", "model.int8.onnx")},
        parity=Parity(texts=1, fp32_max_abs_difference=1e-7, int8_min_cosine=0.99, int8_mean_cosine=0.99),
    )
    manifest.save(tmp_path)
    return tmp_path


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads((folder / MANIFEST_FILE).read_text())
    change(fields)
    (folder / MANIFEST_FILE).write_text(json.dumps(fields))


def test_a_manifest_survives_the_disk(folder: Path) -> None:
    manifest = EmbedderManifest.load(folder)
    manifest.save(folder)
    assert EmbedderManifest.load(folder) == manifest


def test_a_missing_folder_is_not_found_and_the_message_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere.*tritonrag export embedder --output"):
        Encoder.open(tmp_path / "nowhere")


def test_a_folder_without_a_manifest_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"holds no embedder\.json.*tritonrag export embedder"):
        Encoder.open(tmp_path)


def test_another_format_version_is_refused_by_number(folder: Path) -> None:
    rewrite(folder, lambda fields: fields.update(format_version=2))
    with pytest.raises(BadRequestError, match="is of format 2, and this program reads format 1"):
        EmbedderManifest.load(folder)


@pytest.mark.parametrize("text", ["", "not json", "[]", "{}", '{"format_version": 1}', '"\\ud800"'])
def test_a_manifest_that_is_none_is_damage(folder: Path, text: str) -> None:
    (folder / MANIFEST_FILE).write_text(text)
    with pytest.raises(InternalError, match="damaged"):
        EmbedderManifest.load(folder)


def test_a_manifest_that_is_not_utf8_is_damage(folder: Path) -> None:
    (folder / MANIFEST_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InternalError, match="not UTF-8"):
        EmbedderManifest.load(folder)


def test_an_unknown_field_is_refused(folder: Path) -> None:
    rewrite(folder, lambda fields: fields.update(surprise=1))
    with pytest.raises(InternalError, match="damaged"):
        EmbedderManifest.load(folder)


def test_an_unknown_pooling_is_refused(folder: Path) -> None:
    rewrite(folder, lambda fields: fields.update(pooling="max"))
    with pytest.raises(InternalError, match="pooling is 'max'"):
        EmbedderManifest.load(folder)


def test_one_changed_byte_is_damage(folder: Path) -> None:
    (folder / "model.int8.onnx").write_bytes(b"onnX")
    with pytest.raises(InternalError, match=r"model\.int8\.onnx is damaged"):
        EmbedderManifest.load(folder)


def test_the_encoder_refuses_a_damaged_model_before_it_reads_it(folder: Path) -> None:
    (folder / "model.int8.onnx").write_bytes(b"onnx!")
    with pytest.raises(InternalError, match=r"model\.int8\.onnx is damaged"):
        Encoder.open(folder)


def test_a_lost_file_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NotFoundError, match=r"lacks its file tokenizer\.json"):
        EmbedderManifest.load(folder)


def test_a_precision_that_the_folder_does_not_hold_is_named(folder: Path) -> None:
    with pytest.raises(
        BadRequestError, match=r"records no model\.fp32\.onnx; set TRITONRAG_EMBEDDER_PRECISION .*: int8$"
    ):
        Encoder.open(folder, precision="fp32")


def test_a_tokenizer_that_is_none_is_told(folder: Path) -> None:
    with pytest.raises(InternalError, match=r"tokenizer\.json is not a tokenizer"):
        Encoder.open(folder)
