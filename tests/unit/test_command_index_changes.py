"""`tritonrag index ...`: what changes an index, and what tells of it, as a user at the command line sees it."""

import json
import os
from pathlib import Path
from typing import Any

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
    monkeypatch.setenv("TRITONRAG_INDEX", "index")
    monkeypatch.setattr(indexing.Encoder, "open", lambda *_, **__: FakeEncoder())
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("---\nlang: en\nyear: 2025\n---\n# Kettle\n\nIt boils water.\n")
    (docs / "b.md").write_text("# Lamp\n\nIt gives light.\n")
    return docs


def run(*arguments: str) -> int:
    return cli.run_command(["index", *arguments])


def report(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_add_tells_what_is_new_what_has_changed_and_what_has_not(folder: Path, capsys: Capture) -> None:
    run("build", "docs")
    (folder / "a.md").write_text("# Kettle\n\nIt boils water quickly.\n")
    (folder / "c.md").write_text("# Chair\n\nOne sits on it.\n")
    capsys.readouterr()
    assert run("add", "docs") == 0
    assert "1 documents are new, 1 have changed, 1 have not" in capsys.readouterr().out
    assert run("add", "docs") == 0
    assert "nothing to add: 3 documents are in index as they are" in capsys.readouterr().out
    assert report(capsys, "status")["index_version"] == 2


def test_add_without_an_index_says_how_to_build_one(capsys: Capture) -> None:
    assert run("add", "docs") == 2
    assert "tritonrag index build" in capsys.readouterr().err


def test_jsonl_brings_its_own_ids_tenants_and_metadata(folder: Path, capsys: Capture) -> None:
    lines = [{"id": "x", "text": "One", "tenant": "acme", "metadata": {"lang": "de"}}, {"id": "y", "text": "Two"}]
    (folder / "more.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    built = report(capsys, "build", "docs")
    assert (built["documents"], built["passages"]) == (4, 4)
    assert run("delete", "x") == 2
    assert report(capsys, "delete", "x", "--tenant", "acme")["documents"] == 1
    (folder / "more.jsonl").write_text('{"id": "z"}\n')
    assert run("add", "docs") == 2
    error = capsys.readouterr().err
    assert "more.jsonl" in error
    assert "line 1" in error
    assert report(capsys, "status")["counts"]["documents"] == 3


def test_delete_names_what_is_not_there(capsys: Capture) -> None:
    run("build", "docs")
    assert run("delete", "docs/a.md", "docs/zzz.md") == 2
    assert "no document 'docs/zzz.md'" in capsys.readouterr().err
    assert run("delete", "docs/a.md", "docs/zzz.md", "--missing-ok") == 0
    out = capsys.readouterr().out
    assert "1 documents" in out
    assert "1 were not there" in out


def test_status_tells_versions_fields_and_bytes(capsys: Capture) -> None:
    run("build", "docs", "--mode", "dense", "--vectors", "int8", "--dims", "8")
    run("delete", "docs/b.md", "--no-merge")
    capsys.readouterr()
    assert run("status") == 0
    out = capsys.readouterr().out
    for said in ("version 2", "1 passages of 1 documents", "stored as int8, 8 of 16 dimensions (pca)", "searched dense",
                 "filters: lang, year", "2 passages, 1 deleted, flat", "version 1: 2 passages, index build"):  # fmt: skip
        assert said in out
    found = report(capsys, "status")
    assert found["counts"]["passages"] == 1
    assert found["vectors"]["recall_at_10"] is not None
    assert [version["cause"] for version in found["versions"]] == ["index build", "index delete"]


def test_rollback_merge_and_gc(capsys: Capture) -> None:
    run("build", "docs")
    run("delete", "docs/b.md", "--no-merge")
    assert report(capsys, "rollback") == {"from_version": 2, "index_version": 1}
    assert run("rollback", "7") == 2
    assert "no version 7" in capsys.readouterr().err
    assert report(capsys, "rollback", "2")["index_version"] == 2
    assert report(capsys, "merge")["segments"] == 1
    assert report(capsys, "status")["index_version"] == 2
    assert report(capsys, "merge", "--all") == {"index_version": 3, "segments_before": 1, "segments": 1}
    assert report(capsys, "gc", "--keep", "1")["removed"] == [1, 2]
    assert report(capsys, "status")["other_bytes"] == 0


def test_verify_names_a_damaged_file_and_ends_with_status_1(tmp_path: Path, capsys: Capture) -> None:
    run("build", "docs")
    assert run("verify") == 0
    assert "every file is as its manifest says" in capsys.readouterr().out
    (passages,) = (tmp_path / "index").glob("segments/*/passages.bin")
    passages.write_bytes(passages.read_bytes()[::-1])
    assert run("verify") == 1
    assert "passages.bin is damaged" in capsys.readouterr().err
    run("build", "docs")
    capsys.readouterr()
    assert run("verify") == 0
    assert run("verify", "--all", "--json") == 1
    assert "passages.bin" in json.loads(capsys.readouterr().out.splitlines()[-1])["problems"][0]
    assert run("rollback") == 1
    assert "passages.bin is damaged" in capsys.readouterr().err


def test_only_declared_fields_are_filterable(capsys: Capture) -> None:
    run("build", "docs", "--field", "lang")
    assert report(capsys, "status")["segments"][0]["fields"] == ["lang"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--kind", "hnsww"), "hnsww"),
        (("--recall", "2"), "recall is 2"),
        (("--dims", "99"), "dims is 99"),
        (("--language", "klingon"), "klingon"),
        (("--vectors-from", "nowhere.npy"), "nowhere.npy"),
        (("--tenant", ""), "tenant"),
    ],
)
def test_options_that_make_no_sense_are_named(options: tuple[str, ...], said: str, capsys: Capture) -> None:
    assert run("build", "docs", *options) == 2
    assert said in capsys.readouterr().err
    assert run("status") == 2


def test_a_recall_that_is_out_of_reach_is_a_warning(folder: Path, capsys: Capture) -> None:
    lines = [{"id": f"p{i}", "text": f"text number {i}"} for i in range(3000)]
    (folder / "more.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run("build", "docs", "--kind", "ivf_flat", "--recall", "1.0") == 0
    captured = capsys.readouterr()
    assert "ivf_flat: recall@10 0.99" in captured.out
    assert "warning: recall@10 is 0.99" in captured.err
    assert "a lower --recall" in captured.err
