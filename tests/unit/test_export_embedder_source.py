"""Which model folders are read, with which pooling and prefixes, and what is told of those that are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from tiny_embedders import change, write_json, write_tiny_bert

from tritonrag_backends.embedding.format import Pooling
from tritonrag_client.errors import BadRequestError, NotFoundError
from tritonrag_export.embedder.source import SourceModel, SourceOptions, find_default_source, read_source

PROMPTS = "config_sentence_transformers.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bert(tmp_path / "tiny")


@pytest.fixture
def plain_folder(folder: Path) -> Path:
    """As transformers saves a model: nothing of sentence-transformers."""
    for name in ("1_Pooling/config.json", "sentence_bert_config.json", "modules.json"):
        (folder / name).unlink()
    return folder


def read(folder: Path, **options: Any) -> SourceModel:
    return read_source(folder, name="tiny", options=SourceOptions(**options))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_plain_folder_is_read_with_the_pooling_that_is_named_and_all_its_positions(
    plain_folder: Path, pooling: Pooling
) -> None:
    model = read(plain_folder, pooling=pooling)
    assert (model.pooling, model.max_tokens) == (pooling, 24)


def test_a_plain_folder_without_a_pooling_is_refused_with_the_option_to_give(plain_folder: Path) -> None:
    with pytest.raises(
        NotFoundError, match=r"lacks 1_Pooling/config\.json; name the model's pooling: --pooling mean, cls"
    ):
        read(plain_folder)


@pytest.mark.parametrize(
    ("fields", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"embedding_dimension": 32, "pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_the_folders_pooling_is_read_in_the_old_and_in_the_new_form(
    folder: Path, fields: dict[str, Any], pooling: Pooling
) -> None:
    write_json(folder / "1_Pooling" / "config.json", fields)
    assert read(folder).pooling == pooling
    assert read(folder, pooling=pooling).pooling == pooling


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling_mode": "weightedmean"}, r"pooling is \['weightedmean'\]; supported"),
        ({"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ({"pooling_mode_mean_tokens": True, "include_prompt": False}, "include_prompt"),
    ],
)
def test_a_pooling_that_the_graphs_do_not_do_is_refused(folder: Path, fields: dict[str, Any], message: str) -> None:
    write_json(folder / "1_Pooling" / "config.json", fields)
    with pytest.raises(BadRequestError, match=message):
        read(folder)


def test_a_pooling_that_contradicts_the_folder_is_refused(folder: Path) -> None:
    with pytest.raises(BadRequestError, match="the model's pooling is mean, and --pooling says cls"):
        read(folder, pooling="cls")


@pytest.mark.parametrize(
    ("prompts", "query", "passage"),
    [
        ({"query": "query: ", "passage": "passage: "}, "query: ", "passage: "),
        ({"query": "q: ", "document": "d: "}, "q: ", "d: "),
        ({"query": "q: "}, "q: ", ""),
        ({"classification": "Classify: "}, "", ""),
        ({}, "", ""),
        (None, "", ""),
    ],
)
def test_the_folders_prompts_are_the_prefixes(
    folder: Path, prompts: dict[str, str] | None, query: str, passage: str
) -> None:
    write_json(folder / PROMPTS, {"prompts": prompts, "default_prompt_name": None})
    model = read(folder)
    assert (model.query_prefix, model.passage_prefix) == (query, passage)


def test_an_option_stands_over_the_folders_prompt_even_an_empty_one(folder: Path) -> None:
    write_json(folder / PROMPTS, {"prompts": {"query": "q: ", "passage": "p: "}})
    model = read(folder, query_prefix="", passage_prefix="title: ")
    assert (model.query_prefix, model.passage_prefix) == ("", "title: ")


@pytest.mark.parametrize("prompts", [["query"], {"query": 1}, {"query": None}])
def test_prompts_that_are_no_texts_are_refused(folder: Path, prompts: Any) -> None:
    write_json(folder / PROMPTS, {"prompts": prompts})
    with pytest.raises(BadRequestError, match="prompts must be an object of texts"):
        read(folder)


def test_prefixes_are_part_of_the_vector_space_and_empty_ones_change_nothing(folder: Path) -> None:
    plain = read(folder).fingerprint
    assert read(folder, query_prefix="", passage_prefix="").fingerprint == plain
    spaces = {
        read(folder, query_prefix=query, passage_prefix=passage).fingerprint
        for query, passage in [("", ""), ("a", ""), ("", "a"), ("a", "a"), ("aa", "")]
    }
    assert len(spaces) == 5


def test_the_packaged_model_has_the_fingerprint_that_indexes_have_recorded_since_before_there_were_prefixes() -> None:
    fingerprint = "e3da8d8526569593e6b1bafcbc6d3583fd8860997b880c3001f41f014e581efb"
    assert read(find_default_source()).fingerprint == fingerprint


def test_a_pickle_is_not_read_and_the_way_out_is_told(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        NotFoundError,
        match=r"lacks model\.safetensors; its pytorch_model\.bin .* a pickle.* let transformers write .*save_pretrained",
    ):
        read(folder)


def test_weights_in_several_files_are_refused_with_the_way_out(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    write_json(folder / "model.safetensors.index.json", {})
    with pytest.raises(NotFoundError, match=r"in several files: .* max_shard_size"):
        read(folder)


def test_weights_in_bfloat16_are_refused_with_the_way_out(folder: Path) -> None:
    import torch  # noqa: PLC0415 - slow to load, and NumPy has no such type
    from safetensors.torch import save_file as save_tensors  # noqa: PLC0415

    weights = load_file(folder / "model.safetensors")
    save_tensors(
        {name: torch.from_numpy(value).bfloat16() for name, value in weights.items()}, folder / "model.safetensors"
    )
    with pytest.raises(BadRequestError, match=r"numbers of type 'BF16'; .* model\.float\(\)"):
        read(folder)


def test_the_old_names_of_layer_norms_are_understood(folder: Path) -> None:
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = load_file(folder / "model.safetensors")
    for new, old in names.items():
        weights = {f"bert.{name.removeprefix('bert.').replace(new, old)}": value for name, value in weights.items()}
    before = read(folder).weights
    save_file(weights, folder / "model.safetensors")
    after = read(folder).weights
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)


def setting(**fields: object) -> Callable[[Path], None]:
    return lambda folder: change(folder / "config.json", **fields)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            setting(architectures=["BertForSequenceClassification"]),
            "supported: BertModel, RobertaModel, XLMRobertaModel",
        ),
        (setting(architectures=["ModernBertModel"]), "architecture is ModernBertModel; supported"),
        (setting(is_decoder=True), "is a decoder"),
        (setting(num_attention_heads=5), "32 elements can't be shared by 5 heads"),
        (setting(vocab_size=17_000_000), r"weights are 2\.18 GB in FP32, and an ONNX file holds 2\.05 GB"),
        (setting(hidden_act=None), "hidden_act is None"),
        (setting(architectures=["MPNetModel"]), r"holds nothing for encoder\.relative_attention_bias\.weight"),
    ],
)
def test_a_config_that_the_graphs_do_not_fit_is_refused(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    with pytest.raises(BadRequestError, match=message):
        read(folder)
