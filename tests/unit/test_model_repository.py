"""Every configuration fits Triton's schema, and in every profile the ensembles' tensors are those of the models in them."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from model_repository_checks import flaws, is_ensemble
from tritonclient.grpc import model_config_pb2

from tritonrag.encoder_config import CONFIGS
from tritonrag.repository import config_of, read_config
from tritonrag.triton_command import CHECKOUT_REPOSITORY
from tritonrag_client.contract import (
    ATTENTION_MASK,
    DEGRADED,
    EMBEDDER,
    EMBEDDING,
    ENCODER,
    GENERATOR,
    INPUT_IDS,
    MAX_BATCH,
    RAG,
    RETRIEVAL_DEGRADED,
    RETRIEVE,
    RETRIEVER,
    TEXT_INPUT,
    TOKENIZER,
)  # fmt: skip
from tritonrag_client.errors import BadRequestError

MODELS = sorted(path.name for path in CHECKOUT_REPOSITORY.iterdir() if (path / "config.pbtxt").is_file())
FILES = sorted(CHECKOUT_REPOSITORY.glob("*/**/*.pbtxt"))


def profile_configs(profile: str, encoder: str = "python") -> dict[str, Any]:
    """What is served in a profile; in profile gpu with the encoder of one runtime."""
    configs = {model: read_config(config_of(CHECKOUT_REPOSITORY / model, profile)) for model in MODELS}
    if profile == "gpu":
        configs[ENCODER] = read_config(CHECKOUT_REPOSITORY / ENCODER / CONFIGS[encoder])
    return configs


PROFILES = [("cpu", "python"), *(("gpu", runtime) for runtime in CONFIGS)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT_REPOSITORY)))
def test_a_configuration_fits_tritons_schema(path: Path) -> None:
    config = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    assert config.name == path.relative_to(CHECKOUT_REPOSITORY).parts[0]


def test_the_models_are_those_of_the_contract() -> None:
    assert set(MODELS) == {EMBEDDER, RETRIEVER, GENERATOR, RETRIEVE, RAG, TOKENIZER, ENCODER}


@pytest.mark.parametrize(("profile", "encoder"), PROFILES)
def test_ensembles_and_their_models_agree_in_every_tensor(profile: str, encoder: str) -> None:
    configs = profile_configs(profile, encoder)
    assert flaws(configs) == []
    ensembles = {name for name, config in configs.items() if is_ensemble(config)}
    assert ensembles == ({RAG} if profile == "cpu" else {RETRIEVE, RAG, EMBEDDER})


@pytest.mark.parametrize("model", [EMBEDDER, RETRIEVE])
@pytest.mark.parametrize(("profile", "encoder"), PROFILES)
def test_a_model_is_the_same_to_its_callers_in_every_profile(profile: str, encoder: str, model: str) -> None:
    def face(config: Any) -> Any:
        inputs = {(t.name, t.data_type, tuple(t.dims), t.optional) for t in config.input}
        return inputs, {(t.name, t.data_type, tuple(t.dims)) for t in config.output}, config.max_batch_size

    assert face(profile_configs(profile, encoder)[model]) == face(profile_configs("cpu")[model])
    assert profile_configs(profile, encoder)[model].max_batch_size == MAX_BATCH


def _drop_input(model: str, tensor: str) -> Callable[[dict[str, Any]], None]:
    def change(configs: dict[str, Any]) -> None:
        kept = [copy.deepcopy(one) for one in configs[model].input if one.name != tensor]
        del configs[model].input[:]
        configs[model].input.extend(kept)

    return change


def _tensor(configs: dict[str, Any], model: str, kind: str, name: str) -> Any:
    return next(tensor for tensor in getattr(configs[model], kind) if tensor.name == name)


def _step(configs: dict[str, Any], ensemble: str, model: str) -> Any:
    return next(step for step in configs[ensemble].ensemble_scheduling.step if step.model_name == model)


BREAKS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a tensor of another type": (
        lambda c: setattr(_tensor(c, ENCODER, "input", INPUT_IDS), "data_type", model_config_pb2.TYPE_INT64),
        "encoder's input_ids differs in its type",
    ),
    "a tensor of other dims": (
        lambda c: _tensor(c, ENCODER, "output", EMBEDDING).dims.append(4),
        r"embedding differs in its dims: \[-1\] and \[-1, 4\]",
    ),
    "fixed dims that are not those": (
        lambda c: _tensor(c, RETRIEVE, "input", TEXT_INPUT).dims.__setitem__(0, 2),
        r"text_input differs in its dims: \[1\] and \[2\]",
    ),
    "an input that no model has": (_drop_input(TOKENIZER, TEXT_INPUT), "tokenizer has no input text_input"),
    "an input that the ensemble lacks": (
        _drop_input(EMBEDDER, TEXT_INPUT),
        "tokenizer gets text_input, which no step before it gives",
    ),
    "an input that is demanded in vain": (
        lambda c: setattr(_tensor(c, RAG, "input", TEXT_INPUT), "optional", False),
        "the input text_input is not optional",
    ),
    "an input that may be left out and is needed": (
        lambda c: setattr(_tensor(c, RETRIEVER, "input", TEXT_INPUT), "optional", False),
        "retrieve: the input text_input is optional",
    ),
    "a needed input that is not connected": (
        lambda c: _step(c, EMBEDDER, ENCODER).input_map.pop(ATTENTION_MASK),
        "encoder gets no attention_mask",
    ),
    "an output that no model gives": (
        lambda c: _step(c, RETRIEVE, RETRIEVER).output_map.pop(DEGRADED),
        "retrieve: no model gives the output degraded",
    ),
    "an output that its model lacks": (
        lambda c: _step(c, RAG, RETRIEVE).output_map.update({"depth": RETRIEVAL_DEGRADED}),
        "retrieve has no output depth",
    ),
    "a model that is not there": (lambda c: c.pop(ENCODER), "there is no model encoder"),
    "a model that takes fewer rows": (
        lambda c: setattr(c[ENCODER], "max_batch_size", 8),
        "encoder takes 8 rows, and the ensemble 64",
    ),
    "an ensemble's input that goes nowhere": (
        lambda c: c[RETRIEVE].input.add(name="colour", data_type=model_config_pb2.TYPE_STRING, dims=[1]),
        "no model takes the input colour",
    ),
    "a model by another name": (lambda c: setattr(c[RETRIEVE], "name", "fetch"), "retrieve: its name is 'fetch'"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_what_is_broken_is_found(case: str) -> None:
    change, said = BREAKS[case]
    configs = profile_configs("gpu")
    assert flaws(configs) == []
    change(configs)
    found = flaws(configs)
    assert any(re.search(said, flaw) for flaw in found), found


def test_a_configuration_that_is_none_is_refused_by_its_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text('name: "embedder"\nmax_batch: 4\n')
    with pytest.raises(BadRequestError, match=r"config\.pbtxt is no model configuration.*2:1.*max_batch"):
        read_config(path)
