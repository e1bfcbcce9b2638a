"""`tritonrag index build`: what was left out is named with its reason, and a folder of the wrong files says so."""

import json
import os
from pathlib import Path

import pytest
from index_fakes import FakeEncoder

from tritonrag import cli, indexing

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in os.environ:
        if name.startswith("TRITONRAG_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(indexing.Encoder, "open", lambda *_, **__: FakeEncoder())
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


def build(*options: str) -> int:
    return cli.run_command(["index", "build", "docs", "--output", "index", *options])


def test_what_was_not_read_is_named_with_its_reason_and_counted(folder: Path, capsys: Capture) -> None:
    (folder / "good.md").write_text("# Kettle\n\nIt boils water.\n")
    (folder / "empty.md").touch()
    (folder / "junk.txt").write_bytes(bytes(100))
    (folder / "code.py").touch()
    assert build() == 0
    out = capsys.readouterr().out
    assert "1 passages from 1 documents" in out
    assert "1 .py" in out
    assert "2 skipped" in out
    assert "docs/empty.md is empty" in out
    assert "docs/junk.txt holds NUL bytes" in out


def test_json_has_the_same(folder: Path, capsys: Capture) -> None:
    (folder / "good.md").write_text("It boils water.\n")
    (folder / "empty.md").touch()
    (folder / "code.py").touch()
    assert build("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["unsupported"] == {".py": 1}
    assert [skipped["path"] for skipped in report["skipped"]] == ["docs/empty.md"]


def test_a_folder_of_unsupported_files_is_told_with_its_kinds_and_ours(folder: Path, capsys: Capture) -> None:
    for name in ("a.py", "b.py", "Makefile"):
        (folder / name).touch()
    assert build() == 2
    err = capsys.readouterr().err
    assert "2 .py" in err
    assert "1 without suffix" in err
    assert ".docx" in err


def test_an_empty_folder_is_told_without_a_word_on_kinds(capsys: Capture) -> None:
    assert build() == 2
    err = capsys.readouterr().err
    assert "there is nothing to index" in err
    assert "supported" not in err


def test_the_long_last_step_is_told(folder: Path, capsys: Capture) -> None:
    (folder / "good.md").write_text("It boils water.\n")
    assert build() == 0
    assert "checking the files" in capsys.readouterr().err
