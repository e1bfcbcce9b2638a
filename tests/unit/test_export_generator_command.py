"""`tritonrag export generator`: what its options say, and which do not go together."""

import json
from pathlib import Path

import pytest

from tritonrag.cli import run_command
from tritonrag.commands.export_generator import adapters_of
from tritonrag_backends.generation.genai.format import GeneratorManifest
from tritonrag_client.errors import BadRequestError


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command says to options that it refuses."""
    assert run_command(["export", "generator", *options]) == 2
    return capsys.readouterr().err


def test_a_model_goes_to_the_folder_and_json_tells_of_it(
    tiny_hf_dir: Path, tiny_lora_dirs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "generator"
    adapters = [f"--adapter={name}={directory}" for name, directory in tiny_lora_dirs.items()]
    options = ["--from", str(tiny_hf_dir), "--to", str(folder), "--precision", "fp32", "--json", *adapters]
    assert run_command(["export", "generator", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    manifest = GeneratorManifest.load(folder)
    assert (told["output"], told["fingerprint"]) == (str(folder), manifest.fingerprint)
    assert told["adapters"] == ["terse", "polite"]
    assert told["parity"]["equal_tokens"] == told["adapter_parity"]["terse"]["equal_tokens"] == 1.0


def test_variables_say_what_options_say_and_serve_finds_the_model(
    tiny_hf_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITONRAG_EXPORT_GENERATOR_FROM", str(tiny_hf_dir))
    monkeypatch.setenv("TRITONRAG_EXPORT_PRECISION", "fp32")
    monkeypatch.setenv("TRITONRAG_GENAI_MODEL", str(tmp_path / "generator"))
    assert run_command(["export", "generator"]) == 0
    assert "100.0% of " in capsys.readouterr().out
    assert GeneratorManifest.load(tmp_path / "generator").precision == "fp32"


def test_a_checkpoint_for_tensorrt_llm_says_how_it_is_served(
    tiny_hf_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoint"
    options = ["--from", str(tiny_hf_dir), "--to", "tensorrt-llm", "--output", str(folder)]
    assert run_command(["export", "generator", *options]) == 0
    assert f"tritonrag serve --engine tensorrt_llm --trtllm-model {folder}" in capsys.readouterr().out
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "tensorrt-llm", "--precision", "int4"], "--precision means nothing for tensorrt-llm"),
        (["--to", "tensorrt-llm", "--execution", "cuda"], "--execution means nothing for tensorrt-llm"),
        (["--to", "tensorrt-llm", "--adapter", "a=b"], "--adapter means nothing for tensorrt-llm"),
        (["--quantise", "fp8"], "--quantise means nothing for onnxruntime-genai"),
        (["--to", "folder", "--engine-dir", "e"], "--engine-dir means nothing for onnxruntime-genai"),
        (["--to", "folder", "--output", "other"], "--to folder and --output other both say where to write"),
        (["--adapter", "nameless"], "--adapter is 'nameless'; write NAME=DIR"),
        (["--from", "nowhere"], "there is no model at nowhere"),
        (["--precision", "fp16"], "precision fp16 can't be exported for cpu"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *options)
    assert list(tmp_path.iterdir()) == []


def test_adapters_are_names_with_folders() -> None:
    assert adapters_of(("a=b", "c=d=e")) == {"a": Path("b"), "c": Path("d=e")}
    with pytest.raises(BadRequestError, match="names 'a' twice"):
        adapters_of(("a=b", "a=c"))
