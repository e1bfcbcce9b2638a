"""`tritonrag eval`: what is wrong is told before the index is opened, and the figures come as a table, as JSON and as a record."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_perf_retrieval_quality import DENSE, DOCUMENTS, HYBRID, LEXICAL, searching

from tritonrag.commands import eval as command
from tritonrag_backends.settings import Settings
from tritonrag_client.errors import BadRequestError
from tritonrag_perf import plot, relevance_measures

Capture = pytest.CaptureFixture[str]
TSV = "question\trelevant\tsplit\none\ta.html\ttuning\ntwo\tb.html c.html\theld-out\nthree\td.html\ttuning\n"


@pytest.fixture(autouse=True)
def questions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        command,
        "open_index",
        lambda _settings: command.OpenIndex(
            documents=DOCUMENTS,
            search=searching(dense=DENSE, lexical=LEXICAL, hybrid=HYBRID),
            words="900 passages of 16 documents",
        ),
    )
    path = tmp_path / "some.tsv"
    path.write_text(TSV)
    return path


def run(questions: Path, **options: Any) -> None:
    command.run(questions=questions, index=None, embedder=None, **options)


def figures(report: Mapping[str, Any], mode: str) -> dict[str, float]:
    return {name: estimate["mean"] for name, estimate in report["splits"][-1]["scores"][mode].items()}


def test_the_table_and_what_was_missed_are_printed(questions: Path, capsys: Capture) -> None:
    run(questions)
    out = capsys.readouterr().out
    assert "3 questions of some.tsv, asked of 900 passages of 16 documents" in out
    assert "all, 3 questions" in out
    assert "0.333 [0.00, 1.00]" in out
    assert "no relevant document among the first 10: dense 1, lexical 0, hybrid 0" in out
    assert not list(Path().glob("*/"))


def test_json_is_one_line_with_figures_outcomes_and_files(questions: Path, capsys: Capture) -> None:
    run(questions, json=True)
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert figures(record["report"], "dense")["MRR@10"] == pytest.approx(1 / 2)
    assert record["report"]["outcomes"][2]["found"]["dense"]["rank"] is None
    assert record["files"] == []


def test_modes_cutoffs_split_and_passages_are_as_asked_for(questions: Path, capsys: Capture) -> None:
    run(questions, json=True, modes=("hybrid", "dense", "hybrid"), k=(20, 2), split="tuning", num_passages=30)
    record = json.loads(capsys.readouterr().out)
    (split,) = record["report"]["splits"]
    assert (split["split"], split["questions"], list(split["scores"])) == ("tuning", 2, ["hybrid", "dense"])
    assert record["report"]["measures"] == ["recall@2", "recall@20", "MRR@10", "nDCG@10"]
    assert record["report"]["num_passages"] == 30
    assert record["command"] == (
        "tritonrag eval --questions FILE --index DIR --output DIR"
        " --mode hybrid --mode dense --k 2 --k 20 --num-passages 30 --split tuning"
    )


def test_the_record_is_written_where_it_is_wanted(questions: Path, capsys: Capture) -> None:
    run(questions, output=Path("out"), plot=False, name="mine")
    assert {path.name for path in Path("out").iterdir()} == {"mine.json", "mine.md"}
    assert "written: out/mine.json, out/mine.md" in capsys.readouterr().out


def test_what_was_left_aside_is_told_on_stderr(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "one"}\n{"_id": "q2", "text": "two"}\n')
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta.html\t1\nq1\tz.html\t1\nq3\ta.html\t1\n")
    run(folder)
    told = capsys.readouterr().err
    assert "judgements of queries that are not in the queries' file, not used: 1" in told
    assert "queries without a judgement in these qrels, not asked: 1" in told
    assert "relevant ids that match no document of the index, so that no mode can find it (1): z.html" in told


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"modes": ()}, "modes are"),
        ({"k": (0,)}, r"\[0\]"),
        ({"num_passages": 5}, "num_passages is 5"),
        ({"split": "test"}, "no question of the split 'test'"),
    ],
)
def test_what_is_wrong_is_told_before_the_index_is_opened(
    questions: Path, options: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "open_index", _not_opened)
    with pytest.raises(BadRequestError, match=named):
        run(questions, **options)


def test_a_question_file_that_is_not_there_is_told_before_the_index_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "open_index", _not_opened)
    with pytest.raises(BadRequestError, match=r"nowhere\.tsv"):
        run(Path("nowhere.tsv"))


@pytest.mark.parametrize("module", [plot, relevance_measures])
def test_a_library_that_is_not_installed_is_told_before_the_index_is_opened(
    questions: Path, module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "open_index", _not_opened)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(BadRequestError, match=r"tritonrag\[perf\]"):
        run(questions, output=Path("out"))


def _not_opened(_settings: Settings) -> command.OpenIndex:
    raise AssertionError
