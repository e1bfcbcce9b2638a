"""Checkpoints for TensorRT-LLM, against stand-ins for ModelOpt and trtllm-build that refuse what the real ones do not know.

The stand-ins' signatures are those of nvidia-modelopt 0.47 (`quantize`, `export_hf_checkpoint`,
`export_tensorrt_llm_checkpoint`, `get_model_type`). The worker is a process of its own, so they are a package on PYTHONPATH.
"""

import json
import shutil
from pathlib import Path

import pytest

from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError, UnavailableError
from tritonrag_export.generator import trtllm
from tritonrag_export.generator.trtllm import CALIBRATION_TEXTS, MANIFEST_FILE, Quantise, read_texts
from tritonrag_export.generator.trtllm_engine import export_checkpoint

QUANTIZATION = """
FP8_DEFAULT_CFG, INT4_AWQ_CFG, NVFP4_DEFAULT_CFG = "fp8", "int4_awq", "nvfp4"

def quantize(model, config, forward_loop=None):
    calls = []
    hook = model.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].shape[1]))
    forward_loop(model)
    hook.remove()
    assert not model.training and not model.config.use_cache
    model.quantised = f"{config} {len(calls)} {max(calls)} {str(model.dtype)}"
    return model
"""
EXPORT = """
from pathlib import Path

def export_hf_checkpoint(model, dtype=None, export_dir=".", save_modelopt_state=False):
    Path(export_dir, "config.json").write_text("{}")
    Path(export_dir, "hf_quant_config.json").write_text(model.quantised)

def get_model_type(model):
    return "llama"

def export_tensorrt_llm_checkpoint(
    model, decoder_type, dtype=None, export_dir=".", inference_tensor_parallel=0, inference_pipeline_parallel=1
):
    Path(export_dir, "config.json").write_text(decoder_type)
    Path(export_dir, "rank0.safetensors").write_text(getattr(model, "quantised", "plain"))
"""
TRTLLM_BUILD = """#!/bin/sh
[ "$1" = --checkpoint_dir ] && [ "$3" = --output_dir ] && [ $# = 4 ] || { echo "unrecognized arguments: $*" >&2; exit 2; }
[ -f "$2/rank0.safetensors" ] || { echo "no checkpoint in $2" >&2; exit 1; }
cp "$2/rank0.safetensors" "$4/rank0.engine"
cp "$2/config.json" "$4/config.json"
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "checkpoint"


@pytest.fixture
def modelopt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The stand-in for ModelOpt, here and in the worker."""
    package = tmp_path / "site" / "modelopt" / "torch"
    package.mkdir(parents=True)
    for path in (package.parent, package):
        (path / "__init__.py").touch()
    (package / "quantization.py").write_text(QUANTIZATION)
    (package / "export.py").write_text(EXPORT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture
def trtllm_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The stand-in for trtllm-build, first on PATH."""
    script = tmp_path / "bin" / "trtllm-build"
    script.parent.mkdir()
    script.write_text(TRTLLM_BUILD)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    return script


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("What is a list?\n\n" + "word " * 3000 + "\n")
    return path


@pytest.mark.parametrize(("quantise", "config"), [("fp8", "fp8"), ("int4-awq", "int4_awq"), ("nvfp4", "nvfp4")])
@pytest.mark.usefixtures("modelopt")
def test_a_checkpoint_is_calibrated_on_the_texts_and_bears_its_tokenizer(
    quantise: Quantise, config: str, tiny_hf_dir: Path, output: Path, texts: Path
) -> None:
    export_checkpoint(tiny_hf_dir, output, quantise=quantise, calibration=texts)
    # Two texts, the longer one cut; weights that are not quantised are in 16 bits.
    assert (output / "hf_quant_config.json").read_text() == f"{config} 2 512 torch.bfloat16"
    assert (output / "tokenizer.json").is_file()
    facts = {"format_version": 1, "name": "hf", "quantise": quantise, "form": "unified"}
    assert json.loads((output / MANIFEST_FILE).read_bytes()) == facts
    assert [path.name for path in output.parent.iterdir()] == ["checkpoint"]


def test_a_plain_checkpoint_is_the_model_itself_and_needs_no_modelopt(tiny_hf_dir: Path, output: Path) -> None:
    export_checkpoint(tiny_hf_dir, output)
    names = {path.name for path in tiny_hf_dir.iterdir()}
    assert {path.name for path in output.iterdir()} == {*names, MANIFEST_FILE}
    assert (output / "model.safetensors").read_bytes() == (tiny_hf_dir / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("modelopt", "trtllm_build")
def test_an_engine_is_built_of_a_legacy_checkpoint(tiny_hf_dir: Path, output: Path, texts: Path) -> None:
    engine = output.parent / "engine"
    export_checkpoint(tiny_hf_dir, output, quantise="fp8", calibration=texts, engine_dir=engine)
    assert (engine / "rank0.engine").read_text() == "fp8 2 512 torch.bfloat16"
    assert (engine / "config.json").read_text() == (output / "config.json").read_text() == "llama"
    assert (engine / "tokenizer.json").is_file()
    assert sorted(path.name for path in output.parent.iterdir()) == ["checkpoint", "engine"]


@pytest.mark.usefixtures("modelopt")
def test_an_engine_that_can_not_be_built_leaves_nothing(
    trtllm_build: Path, tiny_hf_dir: Path, output: Path, texts: Path
) -> None:
    trtllm_build.write_text("#!/bin/sh\necho loading\necho 'out of GPU memory' >&2\nexit 1\n")
    with pytest.raises(InternalError, match="trtllm-build failed: out of GPU memory"):
        export_checkpoint(tiny_hf_dir, output, quantise="fp8", calibration=texts, engine_dir=output.parent / "engine")
    assert list(output.parent.iterdir()) == []


@pytest.mark.usefixtures("modelopt")
def test_a_model_that_modelopt_can_not_write_is_refused_in_its_words(
    tiny_hf_dir: Path, output: Path, texts: Path, tmp_path: Path
) -> None:
    """As the real one does with int4-awq, where a layer's width is no multiple of 128."""
    words = "Cannot pack weight with input dimension 64 and block size 128"
    stand_in = tmp_path / "site" / "modelopt" / "torch" / "export.py"
    stand_in.write_text(f"def export_hf_checkpoint(model, export_dir):\n    raise NotImplementedError({words!r})\n")
    with pytest.raises(BadRequestError, match=f"ModelOpt can't write hf as int4-awq: {words}"):
        export_checkpoint(tiny_hf_dir, output, quantise="int4-awq", calibration=texts)
    assert list(output.parent.iterdir()) == []


@pytest.mark.usefixtures("modelopt")
def test_without_trtllm_build_the_message_says_who_builds_then(
    tiny_hf_dir: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(UnavailableError, match="the LLM API builds from the checkpoint itself"):
        export_checkpoint(tiny_hf_dir, output, engine_dir=output.parent / "engine")


@pytest.mark.usefixtures("modelopt", "trtllm_build")
def test_engine_and_checkpoint_need_two_folders(tiny_hf_dir: Path, output: Path) -> None:
    with pytest.raises(BadRequestError, match="can't both lie in"):
        export_checkpoint(tiny_hf_dir, output, engine_dir=output)


def test_without_modelopt_the_message_says_how_to_get_it(
    tiny_hf_dir: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trtllm.importlib.util, "find_spec", lambda name: None if name == "modelopt" else object())
    with pytest.raises(UnavailableError, match=r"pip install 'nvidia-modelopt\[hf\]', or use --quantise none"):
        export_checkpoint(tiny_hf_dir, output, quantise="fp8")


def test_missing_calibration_texts_are_not_found(tiny_hf_dir: Path, output: Path) -> None:
    with pytest.raises(NotFoundError, match="there are no calibration texts at"):
        export_checkpoint(tiny_hf_dir, output, calibration=output)


def test_a_generator_folder_is_not_overwritten_by_a_checkpoint(tiny_hf_dir: Path, tiny_llm_dir: Path) -> None:
    with pytest.raises(BadRequestError, match=r"holds no checkpoint\.json, so it is none of ours"):
        export_checkpoint(tiny_hf_dir, tiny_llm_dir)


def test_our_own_calibration_texts_are_many_and_the_same_each_time() -> None:
    texts = read_texts(None)
    assert len(texts) == CALIBRATION_TEXTS
    assert texts == read_texts(None)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\xfa"])
def test_texts_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "texts").write_bytes(content)
    with pytest.raises(BadRequestError, match=r"holds no text|can't be read"):
        read_texts(tmp_path / "texts")
