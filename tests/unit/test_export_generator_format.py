"""The generator folder: what it says survives the disk, and damage is told apart from absence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritonrag_backends.generation.genai.format import (
    MANIFEST_FILE,
    GeneratorManifest,
    Parity,
    adapter_file,
    check_adapter_name,
    fingerprint_of,
)
from tritonrag_backends.model_folder import FileRecord, record_file
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError

PARITY = Parity(prompts=4, positions=9, max_abs_logit_difference=0.5, equal_tokens=0.9, equal_answers=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ("model.onnx", adapter_file("terse"))
    (tmp_path / "adapters").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    files = {name: record_file(tmp_path / name) for name in names}
    GeneratorManifest(
        name="tiny",
        architecture="LlamaForCausalLM",
        precision="int4",
        execution="cpu",
        context_tokens=128,
        vocab_size=600,
        adapters=("terse",),
        fingerprint=fingerprint_of(files),
        files=files,
        parity=PARITY,
        adapter_parity={"terse": PARITY},
    ).save(tmp_path)
    return tmp_path


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads((folder / MANIFEST_FILE).read_text())
    change(fields)
    (folder / MANIFEST_FILE).write_text(json.dumps(fields))


def test_a_manifest_survives_the_disk(folder: Path) -> None:
    manifest = GeneratorManifest.load(folder)
    manifest.save(folder)
    assert GeneratorManifest.load(folder) == manifest


def test_a_model_that_could_not_be_compared_has_no_parity(folder: Path) -> None:
    rewrite(folder, lambda fields: fields.update(parity=None, adapter_parity={}))
    assert GeneratorManifest.load(folder).parity is None


def test_a_missing_folder_is_not_found_and_the_message_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere.*tritonrag export generator --output"):
        GeneratorManifest.load(tmp_path / "nowhere")


def test_a_folder_without_a_manifest_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"holds no generator\.json"):
        GeneratorManifest.load(tmp_path)


def test_another_format_version_is_refused_by_number(folder: Path) -> None:
    rewrite(folder, lambda fields: fields.update(format_version=2))
    with pytest.raises(BadRequestError, match="is of format 2, and this program reads format 1"):
        GeneratorManifest.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(surprise=1),
        lambda fields: fields.pop("name"),
        lambda fields: fields.update(precision="int3"),
        lambda fields: fields.update(execution="abacus"),
        lambda fields: fields.update(context_tokens=0),
        lambda fields: fields.update(adapters=["../../etc/passwd"]),
        lambda fields: fields.update(adapters=["not-among-the-files"]),
        lambda fields: fields["files"].update({"../outside": fields["files"]["model.onnx"]}),
        lambda fields: fields["parity"].pop("prompts"),
    ],
)
def test_a_manifest_that_no_exporter_wrote_is_damaged(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    rewrite(folder, change)
    with pytest.raises(InternalError, match="is damaged"):
        GeneratorManifest.load(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"{"])
def test_a_manifest_that_is_no_json_object_is_damaged(folder: Path, content: bytes) -> None:
    (folder / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(InternalError, match="is damaged"):
        GeneratorManifest.load(folder)


def test_a_changed_file_is_damaged_and_named(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"model.onny")
    with pytest.raises(InternalError, match=r"model\.onnx is damaged"):
        GeneratorManifest.load(folder)
    assert GeneratorManifest.load(folder, verify=False).name == "tiny"


def test_a_missing_file_is_not_found_and_named(folder: Path) -> None:
    (folder / adapter_file("terse")).unlink()
    with pytest.raises(NotFoundError, match=r"lacks its file adapters/terse\.onnx_adapter"):
        GeneratorManifest.load(folder)


def test_the_fingerprint_hangs_on_names_and_contents_and_not_on_order() -> None:
    one, two = (FileRecord(bytes=1, sha256=digest * 64) for digest in "ab")
    assert fingerprint_of({"a": one, "b": two}) == fingerprint_of({"b": two, "a": one})
    assert len({fingerprint_of(files) for files in ({"a": one}, {"b": one}, {"a": two}, {"a": one, "b": one})}) == 4


@pytest.mark.parametrize("name", ["a", "customer-7.v2_final", "x" * 64, "..."])
def test_an_adapter_may_have_any_plain_name(name: str) -> None:
    check_adapter_name(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "..", ".", "a b", "é", "a\n", "a\0"])
def test_an_adapter_may_not_have_a_name_that_is_no_file_name(name: str) -> None:
    with pytest.raises(BadRequestError, match="use 1 to 64 letters"):
        check_adapter_name(name)
