"""`tritonrag export embedder`: what its options say, and the commands that docs/embedding-models.md shows."""

import json
import re
import shlex
from pathlib import Path

import pytest
from tiny_embedders import write_tiny_bert

from tritonrag.cli import run_command
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_client.errors import BadRequestError

Capture = pytest.CaptureFixture[str]
PAGE = Path(__file__).parents[2] / "docs" / "embedding-models.md"
EXAMPLES = re.findall(r"```console\n\$ tritonrag (.+)\n```", PAGE.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's `my-model` and `plain-model` lie in the working folder."""
    write_tiny_bert(tmp_path / "my-model")
    plain = write_tiny_bert(tmp_path / "plain-model")
    for name in ("1_Pooling/config.json", "sentence_bert_config.json", "modules.json"):
        (plain / name).unlink()
    monkeypatch.chdir(tmp_path)


def export(capsys: Capture, *options: str) -> str:
    status = run_command(["export", "embedder", "--output", "out", *options])
    told = capsys.readouterr()
    assert status == 0, told.err
    return told.out


def test_the_page_shows_examples() -> None:
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_pages_commands_make_an_embedder_that_works(example: str, capsys: Capture) -> None:
    assert run_command(shlex.split(example)) == 0, capsys.readouterr().err
    assert Encoder.open(Path("my-embedder")).encode(["a"]).vectors.shape[0] == 1


def test_prefixes_and_pooling_reach_the_folder_and_are_told(capsys: Capture) -> None:
    options = ("--pooling", "last", "--query-prefix", "q: ", "--passage-prefix", "")
    told = export(capsys, "--from", "plain-model", *options)
    assert "'q: ' before queries, '' before passages" in told
    manifest = EmbedderManifest.load(Path("out"))
    assert (manifest.pooling, manifest.query_prefix, manifest.passage_prefix) == ("last", "q: ", "")


def test_json_tells_what_was_written_and_how_close_it_came(capsys: Capture) -> None:
    told = json.loads(export(capsys, "--from", "my-model", "--to", "onnx-fp16", "--json"))
    assert told["files"] == ["encoder.fp16.onnx", "model.fp32.onnx", "model.int8.onnx", "tokenizer.json"]
    assert 0.999 <= told["fp16_min_cosine"] <= 1.001
    assert (told["pooling"], told["query_prefix"], told["plan"]) == ("mean", "", None)


def test_by_default_there_is_nothing_for_gpus(capsys: Capture) -> None:
    told = json.loads(export(capsys, "--from", "my-model", "--json"))
    assert told["files"] == ["model.fp32.onnx", "model.int8.onnx", "tokenizer.json"]
    assert told["fp16_min_cosine"] is None


def test_a_model_that_does_not_bear_int8_is_exported_without_and_serves_in_fp32(capsys: Capture) -> None:
    told = export(capsys, "--from", "my-model", "--no-int8")
    assert "there is no int8" in told
    assert sorted(EmbedderManifest.load(Path("out")).files) == ["model.fp32.onnx", "tokenizer.json"]
    assert Encoder.open(Path("out"), precision="fp32").encode(["a"]).vectors.shape == (1, 32)
    with pytest.raises(BadRequestError, match=r"no model\.int8\.onnx; set TRITONRAG_EMBEDDER_PRECISION .*: fp32"):
        Encoder.open(Path("out"))


def test_variables_say_what_options_say(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONRAG_EXPORT_FROM", "plain-model")
    monkeypatch.setenv("TRITONRAG_EXPORT_EMBEDDER_TO", "onnx-fp16")
    monkeypatch.setenv("TRITONRAG_EXPORT_POOLING", "cls")
    monkeypatch.setenv("TRITONRAG_EXPORT_QUERY_PREFIX", "q: ")
    monkeypatch.setenv("TRITONRAG_EXPORT_PASSAGE_PREFIX", "p: ")
    export(capsys)
    manifest = EmbedderManifest.load(Path("out"))
    assert (manifest.pooling, manifest.query_prefix, manifest.passage_prefix) == ("cls", "q: ", "p: ")
    assert "encoder.fp16.onnx" in manifest.files


def test_buckets_that_are_none_are_refused_by_their_variable(capsys: Capture) -> None:
    assert run_command(["export", "embedder", "--from", "my-model", "--output", "out", "--buckets", "9,8"]) == 2
    assert "TRITONRAG_ENCODER_BUCKETS is '9,8'" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_folder_that_does_not_say_its_pooling_is_told_the_option(capsys: Capture) -> None:
    assert run_command(["export", "embedder", "--from", "plain-model", "--output", "out"]) != 0
    assert "--pooling mean, cls or last" in capsys.readouterr().err
