"""LoRA adapters in an exported model: PEFT is the oracle, and what can't be carried over is refused."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime_genai as genai
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch
from transformers import LlamaForCausalLM

from tritonrag_backends.generation.genai.format import GeneratorManifest, Precision, adapter_file
from tritonrag_client.errors import BadRequestError, NotFoundError
from tritonrag_export.generator.build import build
from tritonrag_export.generator.lora import read_adapter
from tritonrag_export.generator.lora_graph import AdaptableGraph

PROMPT = [0, 40, 80, 300, 17, 200, 151, 42]
TOKENS = 24


class Runner:
    """An exported folder, run by ONNX Runtime GenAI."""

    def __init__(self, folder: Path, adapters: tuple[str, ...] = ()) -> None:
        self.model = genai.Model(str(folder))
        self.adapters = genai.Adapters(self.model)
        for name in adapters:
            self.adapters.load(str(folder / adapter_file(name)), name)

    def start(self, adapter: str | None) -> Any:
        parameters = genai.GeneratorParams(self.model)
        parameters.set_search_options(do_sample=False, max_length=len(PROMPT) + TOKENS)
        generator = genai.Generator(self.model, parameters)
        if adapter:
            generator.set_active_adapter(self.adapters, adapter)
        generator.append_tokens(np.array(PROMPT, np.int32))
        return generator

    def logits(self, adapter: str | None = None) -> npt.NDArray[np.float32]:
        return np.array(self.start(adapter).get_output("logits")[0])

    def answer(self, adapter: str | None = None) -> list[int]:
        generator = self.start(adapter)
        while not generator.is_done():
            generator.generate_next_token()
        return [int(token) for token in generator.get_sequence(0)[len(PROMPT) :]]

    def answer_of_engine(self) -> list[int]:
        engine = genai.Engine(self.model)
        events = engine.create_event_buffer(16)
        request = engine.create_request()
        options = genai.TurnOptions(request)
        options.set_max_generated_tokens(TOKENS)
        options.set_do_sample(False)
        request.begin_turn(np.array(PROMPT, np.int32), options)
        tokens = []
        while engine.has_pending_requests():
            tokens += [event.token for event in engine.run(events)]
        return tokens


def open_peft(hf: Path, adapter: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(hf), adapter).eval()


def answer_of(model: Any) -> list[int]:
    with torch.no_grad():
        ids = torch.tensor([PROMPT])
        tokens = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS
        )
    answer: list[int] = tokens[0, len(PROMPT) :].tolist()
    return answer


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    change(weights)
    save_file(weights, folder / "adapter_model.safetensors")


@pytest.fixture
def adapter_dir(tiny_lora_dirs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one to spoil."""
    return Path(shutil.copytree(tiny_lora_dirs["terse"], tmp_path / "adapter"))


@pytest.mark.parametrize("name", ["terse", "polite"])
def test_an_adapter_answers_as_peft_does(
    name: str, tiny_hf_dir: Path, tiny_lora_dirs: dict[str, Path], tiny_llm_with_adapters_dir: Path
) -> None:
    runner = Runner(tiny_llm_with_adapters_dir, ("terse", "polite"))
    assert runner.answer(name) == answer_of(open_peft(tiny_hf_dir, tiny_lora_dirs[name]))
    assert runner.answer(name) != runner.answer()


def test_without_an_adapter_the_model_answers_as_before(tiny_llm_dir: Path, tiny_llm_with_adapters_dir: Path) -> None:
    assert Runner(tiny_llm_with_adapters_dir).answer() == Runner(tiny_llm_dir).answer()


def test_the_engine_runs_the_graph_unchanged(tiny_llm_with_adapters_dir: Path) -> None:
    runner = Runner(tiny_llm_with_adapters_dir)
    assert runner.answer_of_engine() == runner.answer()


def test_the_manifest_names_the_adapters_and_how_close_they_came(tiny_llm_with_adapters_dir: Path) -> None:
    manifest = GeneratorManifest.load(tiny_llm_with_adapters_dir)
    assert manifest.adapters == ("terse", "polite")
    assert all(parity.equal_tokens == 1.0 for parity in manifest.adapter_parity.values())


@pytest.mark.parametrize("precision", ["fp32", "int4", "int8"])
def test_the_places_for_adapters_change_no_bit_while_none_is_active(
    precision: Precision, tiny_hf_dir: Path, tiny_lora_dirs: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    build(tiny_hf_dir, folder, precision=precision, execution="cpu", with_adapters=True, cache=tmp_path / "cache")
    before = Runner(folder)
    logits, answer = before.logits(), before.answer()
    adapters = [read_adapter(name, directory) for name, directory in tiny_lora_dirs.items()]
    graph = AdaptableGraph(folder)
    graph.add_adapters(adapters)
    for adapter in adapters:
        graph.write(adapter, folder)
    after = Runner(folder, tuple(tiny_lora_dirs))
    assert np.array_equal(logits, after.logits())
    assert answer == after.answer() == after.answer_of_engine()
    assert not np.allclose(logits, after.logits("terse"), atol=1)


def test_quantised_weights_leave_the_adapter_in_float(
    tiny_hf_dir: Path, tiny_lora_dirs: dict[str, Path], tmp_path: Path
) -> None:
    """In int8 what an adapter adds to the logits is what it adds in PEFT, but for the base model's own rounding."""
    folder = tmp_path / "model"
    build(tiny_hf_dir, folder, precision="int8", execution="cpu", with_adapters=True, cache=tmp_path / "cache")
    graph, adapter = AdaptableGraph(folder), read_adapter("terse", tiny_lora_dirs["terse"])
    graph.add_adapters([adapter])
    graph.write(adapter, folder)
    runner, model = Runner(folder, ("terse",)), open_peft(tiny_hf_dir, tiny_lora_dirs["terse"])
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT])).logits[0].numpy()
    with_adapter, without = (np.abs(expected - runner.logits(name)).mean() for name in ("terse", None))
    assert with_adapter < 0.1 * without


@pytest.mark.parametrize("name", ["terse", "polite"])
def test_rank_alpha_and_rslora_scale_as_in_peft(name: str, tiny_hf_dir: Path, tiny_lora_dirs: dict[str, Path]) -> None:
    model = open_peft(tiny_hf_dir, tiny_lora_dirs[name])
    pairs = read_adapter(name, tiny_lora_dirs[name]).pairs
    for module, pair in pairs.items():
        delta = model.base_model.model.get_submodule(module).get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose((pair.down @ pair.up).T, delta, rtol=1e-5, atol=1e-6)
    assert len(pairs) == 6


def test_ranks_and_alphas_by_pattern_scale_as_in_peft(tiny_hf_dir: Path, adapter_dir: Path) -> None:
    def shorten(weights: dict[str, Any]) -> None:
        for key, value in weights.items():
            if "q_proj" in key:
                weights[key] = np.ascontiguousarray(value[:2] if "lora_A" in key else value[:, :2])

    change_weights(adapter_dir, shorten)
    change_config(adapter_dir, rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 5, "v_proj": 3})
    model = open_peft(tiny_hf_dir, adapter_dir)
    for module, pair in read_adapter("a", adapter_dir).pairs.items():
        delta = model.base_model.model.get_submodule(module).get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose((pair.down @ pair.up).T, delta, rtol=1e-5, atol=1e-6)


def test_weights_in_bf16_are_read(adapter_dir: Path) -> None:
    path = adapter_dir / "adapter_model.safetensors"
    save_torch({key: value.to(torch.bfloat16) for key, value in load_torch(path).items()}, path)
    rounded = {key: value.float().numpy() for key, value in load_torch(path).items()}
    pairs = read_adapter("a", adapter_dir).pairs
    for module, pair in pairs.items():
        np.testing.assert_array_equal(pair.down.T, rounded[f"base_model.model.{module}.lora_A.weight"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("fan_in_fan_out", True),
        ("layer_replication", [[0, 1]]),
        ("trainable_token_indices", [1]),
    ],
)
def test_a_variant_that_does_more_is_refused_by_name(adapter_dir: Path, key: str, value: object) -> None:
    change_config(adapter_dir, **{key: value})
    with pytest.raises(BadRequestError, match=f"adapter a uses {key}"):
        read_adapter("a", adapter_dir)


def test_another_kind_of_adapter_is_refused(adapter_dir: Path) -> None:
    change_config(adapter_dir, peft_type="LOHA")
    with pytest.raises(BadRequestError, match="describes no LoRA adapter"):
        read_adapter("a", adapter_dir)


def test_a_weight_that_would_be_left_out_is_refused(adapter_dir: Path) -> None:
    change_weights(
        adapter_dir,
        lambda weights: weights.update({"base_model.model.lm_head.weight": np.zeros((2, 2), np.float32)}),
    )
    with pytest.raises(BadRequestError, match=r"holds base_model\.model\.lm_head\.weight, which is no weight"):
        read_adapter("a", adapter_dir)


def test_half_a_pair_is_refused(adapter_dir: Path) -> None:
    change_weights(adapter_dir, lambda weights: weights.pop(min(weights)))
    with pytest.raises(BadRequestError, match="only one half"):
        read_adapter("a", adapter_dir)


def test_a_rank_that_the_configuration_denies_is_refused(adapter_dir: Path) -> None:
    change_config(adapter_dir, r=5)
    with pytest.raises(BadRequestError, match=r"is of rank 4, and adapter_config\.json says otherwise"):
        read_adapter("a", adapter_dir)


def test_numbers_that_are_not_finite_are_refused(adapter_dir: Path) -> None:
    def spoil(weights: dict[str, Any]) -> None:
        weights[min(weights)][0, 0] = np.nan

    change_weights(adapter_dir, spoil)
    with pytest.raises(BadRequestError, match="not finite"):
        read_adapter("a", adapter_dir)


def test_damaged_weights_are_refused(adapter_dir: Path) -> None:
    (adapter_dir / "adapter_model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(BadRequestError, match="can't be read"):
        read_adapter("a", adapter_dir)


def test_a_pickle_is_not_read(adapter_dir: Path) -> None:
    (adapter_dir / "adapter_model.safetensors").rename(adapter_dir / "adapter_model.bin")
    with pytest.raises(NotFoundError, match="is a pickle"):
        read_adapter("a", adapter_dir)


def test_a_folder_that_is_no_adapter_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"holds no adapter_config\.json"):
        read_adapter("a", tmp_path)


def test_an_adapter_of_another_model_is_refused(adapter_dir: Path, tiny_hf_dir: Path, tmp_path: Path) -> None:
    def widen(weights: dict[str, Any]) -> None:
        for key in [key for key in weights if "lora_A" in key]:
            weights[key] = np.zeros((4, 96), np.float32)

    change_weights(adapter_dir, widen)
    folder = tmp_path / "model"
    build(tiny_hf_dir, folder, precision="fp32", execution="cpu", with_adapters=True, cache=tmp_path / "cache")
    with pytest.raises(
        BadRequestError, match=r"is of another model: .* takes 128 and gives 64 elements here, and 96 and 64"
    ):
        AdaptableGraph(folder).add_adapters([read_adapter("a", adapter_dir)])


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens", "model.layers.7.mlp.up_proj"])
def test_a_module_that_the_graph_has_no_place_for_is_named(
    module: str, adapter_dir: Path, tiny_hf_dir: Path, tmp_path: Path
) -> None:
    def move(weights: dict[str, Any]) -> None:
        weights.clear()
        for part in "AB":
            weights[f"base_model.model.{module}.lora_{part}.weight"] = np.zeros((4, 4), np.float32)

    change_weights(adapter_dir, move)
    folder = tmp_path / "model"
    build(tiny_hf_dir, folder, precision="fp32", execution="cpu", with_adapters=True, cache=tmp_path / "cache")
    with pytest.raises(BadRequestError, match=f"adapter a changes {module}.*down_proj, gate_proj"):
        AdaptableGraph(folder).add_adapters([read_adapter("a", adapter_dir)])
