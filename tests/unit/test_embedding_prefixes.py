"""A model's prefixes: a query is embedded as a query, a passage as a passage, on every path."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_embedders import change, write_tiny_bert

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import MANIFEST_FILE, EmbedderManifest
from tritonrag_backends.embedding.tokens import PrefixingTokenizer, parse_input_type
from tritonrag_client.contract import InputType
from tritonrag_client.errors import BadRequestError, InternalError
from tritonrag_export.documents.chunking import DEFAULT_MAX_TOKENS, fitting_tokens
from tritonrag_export.embedder.exporter import ExportOptions, export_embedder
from tritonrag_export.embedder.source import SourceOptions

LETTERS = st.text("abcdefgh ", max_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with the prefixes "q " and "p p ", that reads 16 tokens."""
    root = tmp_path_factory.mktemp("prefixes")
    source = SourceOptions(query_prefix="q ", passage_prefix="p p ")
    export_embedder(write_tiny_bert(root / "tiny"), root / "out", options=ExportOptions(source=source))
    return root / "out"


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Encoder:
    return Encoder.open(folder, precision="fp32")


@given(text=LETTERS)
def test_a_text_is_embedded_with_the_prefix_of_what_it_is(tiny: Encoder, text: str) -> None:
    as_query, as_passage = tiny.encode([text]), tiny.encode([text], input_type="passage")
    assert tiny.tokenize([text]).ids != tiny.tokenize([text], input_type="passage").ids
    assert np.array_equal(as_query.vectors, tiny.encode_ids(tiny.tokenize([text]).ids).vectors)
    # The prefix is characters before the text, and nothing else: "p p " by hand on a tokenizer without prefixes.
    whole = PrefixingTokenizer(_without_prefixes(tiny), tiny._tokenizer.whole)
    assert tiny.tokenize([text], input_type="passage").ids == whole.tokenize([f"p p {text}"]).ids
    assert as_passage.real_tokens == len(whole.tokenize([f"p p {text}"]).ids[0])


def _without_prefixes(encoder: Encoder) -> EmbedderManifest:
    manifest = encoder._manifest
    fields = {name: getattr(manifest, name) for name in manifest.__slots__}
    return EmbedderManifest(**{**fields, "query_prefix": "", "passage_prefix": ""})


@given(rows=st.lists(st.tuples(LETTERS, st.sampled_from(["query", "passage"])), min_size=1, max_size=8))
def test_queries_and_passages_may_share_a_call(tiny: Encoder, rows: list[tuple[str, InputType]]) -> None:
    texts, types = [text for text, _ in rows], [kind for _, kind in rows]
    together = tiny.encode(texts, input_type=types).vectors
    alone = np.concatenate([tiny.encode([text], input_type=kind).vectors for text, kind in rows])
    assert np.abs(together - alone).max() < 1e-5


def test_as_many_types_as_texts_are_wanted(tiny: Encoder) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        tiny.tokenize(["a", "b"], input_type=["query"])


def test_a_model_without_prefixes_embeds_both_alike(encoder: Encoder) -> None:
    assert np.array_equal(encoder.encode(["a b"]).vectors, encoder.encode(["a b"], input_type="passage").vectors)


@pytest.mark.parametrize(("text", "expected"), [("", "query"), ("query", "query"), ("passage", "passage")])
def test_an_input_type_is_read_and_an_empty_one_is_a_query(text: str, expected: InputType) -> None:
    assert parse_input_type(text) == expected


@pytest.mark.parametrize("text", ["document", "Query", "passage ", "x" * 1000])
def test_an_input_type_that_is_none_is_refused_by_value(text: str) -> None:
    with pytest.raises(BadRequestError, match=f'input_type is \'{text[:40]}\'; send "query" or "passage"'):
        parse_input_type(text)


def test_the_error_for_bad_unicode_counts_the_texts_own_characters(tiny: Encoder) -> None:
    with pytest.raises(BadRequestError, match="text 1 holds a lone surrogate at character 2"):
        tiny.encode(["fine", "ab\ud800"], input_type="passage")


@pytest.mark.parametrize("length", [0, 17])
def test_ids_that_the_model_can_not_read_are_refused_by_number(tiny: Encoder, length: int) -> None:
    with pytest.raises(BadRequestError, match=f"text 1 has {length} tokens; this model reads 1 to 16"):
        tiny.encode_ids([[5], [5] * length])


def test_what_a_prefix_takes_is_no_room_for_passages(tiny: Encoder, encoder: Encoder) -> None:
    assert tiny.passage_tokens == 16 - 2 - 2  # [CLS], [SEP], p, p
    assert tiny.encode(["a " * 12], input_type="passage").truncated == 0
    assert tiny.encode(["a " * 13], input_type="passage").truncated == 1
    assert encoder.passage_tokens == 254


@given(room=st.integers(0, 1000))
def test_passages_are_cut_so_that_title_and_prefix_fit_and_as_before_where_there_is_room(room: int) -> None:
    most = fitting_tokens(room)
    assert most == DEFAULT_MAX_TOKENS if room >= 254 else most <= max(16, room - 30)


def test_prefixes_survive_the_disk_and_an_old_folder_has_none(folder: Path, tmp_path: Path) -> None:
    manifest = EmbedderManifest.load(folder)
    assert (manifest.prefix("query"), manifest.prefix("passage")) == ("q ", "p p ")
    fields = {name: getattr(manifest, name) for name in manifest.__slots__}
    EmbedderManifest(**fields).save(tmp_path)
    old = (tmp_path / MANIFEST_FILE).read_text()
    for field in ('"query_prefix": "q ",', '"passage_prefix": "p p ",', '"plan": null,'):
        assert field in old
        old = old.replace(field, "")
    (tmp_path / MANIFEST_FILE).write_text(old)
    assert EmbedderManifest.load(tmp_path, verify=False).prefix("passage") == ""


@pytest.mark.parametrize("prefix", [None, 1, ["q"]])
def test_a_prefix_that_is_no_text_is_damage(folder: Path, tmp_path: Path, prefix: object) -> None:
    (tmp_path / MANIFEST_FILE).write_text((folder / MANIFEST_FILE).read_text())
    change(tmp_path / MANIFEST_FILE, query_prefix=prefix)
    with pytest.raises(InternalError, match="a prefix is"):
        EmbedderManifest.load(tmp_path, verify=False)
