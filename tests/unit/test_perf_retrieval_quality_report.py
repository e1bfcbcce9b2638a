"""The record of retrieval quality: a page, JSON, a picture and a table that say what was measured, and what to doubt."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from test_perf_retrieval_quality import DOCUMENTS, QUESTIONS, REPORT, SEARCH, asked, searching

from tritonrag_client.errors import BadRequestError
from tritonrag_perf import plot
from tritonrag_perf.bootstrap import Estimate
from tritonrag_perf.machine import Machine
from tritonrag_perf.quality import QualityRecord, QualityReport
from tritonrag_perf.quality_report import difference_cell, score_cell, warnings_of, write_quality_record
from tritonrag_perf.quality_table import terminal_tables
from tritonrag_perf.retrieval_quality import QualityPlan, measure

MANY = [f"q{number}" for number in range(60)]
CLEAR = measure(  # lexical has every document first, dense second
    asked(dict.fromkeys(MANY, "a")),
    DOCUMENTS,
    searching(dense=dict.fromkeys(MANY, "ba"), lexical=dict.fromkeys(MANY, "a")),
    plan=QualityPlan(modes=("dense", "lexical")),
)


def recorded(report: QualityReport = REPORT) -> QualityRecord:
    return QualityRecord(
        date="2026-01-02",
        machine=Machine(cpu="Some CPU", cores=2, memory_gib=23.5, system="Linux"),
        command="tritonrag eval --questions FILE",
        questions=str(QUESTIONS),
        index="900 passages of 16 documents",
        report=report,
    )


def page(folder: Path, report: QualityReport = REPORT) -> str:
    write_quality_record(recorded(report), folder, name="quality", title="Retrieval quality", plot=False)
    return (folder / "quality.md").read_text(encoding="utf-8")


def terminal(report: QualityReport = REPORT, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    for table in terminal_tables(report):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_page_names_what_was_measured_where_and_how(tmp_path: Path) -> None:
    text = page(tmp_path)
    for fact in (
        "# Retrieval quality\n",
        "2026-01-02: Some CPU, 2 cores",
        "3 questions of some.tsv, asked of 900 passages of 16 documents; 50 passages a question.",
        "    tritonrag eval --questions FILE\n",
        "95% bootstrap intervals",
    ):
        assert fact in text


def test_the_page_has_a_table_of_modes_and_one_of_differences_for_each_split(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert [line for line in text.splitlines() if line.startswith("## ")][:3] == [
        "## Tuning, 2 questions",
        "## Held-out, 1 question",
        "## All, 3 questions",
    ]
    assert "| mode | recall@1 | recall@5 | recall@10 | MRR@10 | nDCG@10 |" in text
    assert "| `dense` | 0.333 [0.00, 1.00] | 0.667 [0.00, 1.00] |" in text
    assert "| hybrid - dense | +0.500 [+0.00, +1.00] | +0.333 [+0.00, +1.00] |" in text


def test_a_difference_beyond_noise_is_bold(tmp_path: Path) -> None:
    assert "| lexical - dense | **+1.000 [+1.00, +1.00]** | +0.000 [+0.00, +0.00] |" in page(tmp_path, CLEAR)
    assert "**+" not in page(tmp_path)  # of three questions


def test_the_page_lists_the_questions_that_a_mode_missed(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "| question | split | dense | lexical | hybrid |" in text
    assert "| three | tuning | - | 3 | 1 |" in text
    assert "| one |" not in text


def test_a_missed_question_may_hold_what_would_break_the_table(tmp_path: Path) -> None:
    report = measure(asked({"a|b \\ c": "a"}), DOCUMENTS, searching(dense={}), plan=QualityPlan(modes=("dense",)))
    assert r"| a\|b \\ c |  | - |" in page(tmp_path, report)


def test_the_page_lists_so_many_missed_questions_and_the_json_all(tmp_path: Path) -> None:
    questions = asked(dict.fromkeys(MANY, "a"))
    report = measure(questions, DOCUMENTS, searching(dense={}), plan=QualityPlan(modes=("dense",)))
    text = page(tmp_path, report)
    assert "| q49 |" in text
    assert "| q50 |" not in text
    assert "And 10 more" in text
    assert len(json.loads((tmp_path / "quality.json").read_bytes())["report"]["outcomes"]) == 60


def test_where_nothing_is_missed_the_page_lists_nothing(tmp_path: Path) -> None:
    report = measure(asked({"one": "a"}), DOCUMENTS, searching(dense={"one": "a"}), plan=QualityPlan(modes=("dense",)))
    text = page(tmp_path, report)
    assert "has no relevant document" not in text
    assert "| difference |" not in text


def test_what_makes_the_figures_doubtful_is_told(tmp_path: Path) -> None:
    assert warnings_of(replace(CLEAR, short={"dense": 0, "lexical": 0})) == []
    doubtful = replace(CLEAR, missing=("x.html",), ambiguous=tuple("abcdefghijkl"), short={"dense": 0, "lexical": 2})
    missing, ambiguous, short = warnings_of(doubtful)
    assert missing == "relevant ids that match no document of the index, so that no mode can find it (1): x.html"
    assert ambiguous.endswith(": a, b, c, d, e, f, g, h, i, j, ...")
    assert short == "lexical: for 2 of 60 questions the 50 passages that were asked for are of fewer than 10 documents"
    assert all(f"- {warning}." in page(tmp_path, doubtful) for warning in warnings_of(doubtful))


def test_few_questions_are_told() -> None:
    told = [warning for warning in warnings_of(REPORT) if "fewer than 20" in warning]
    assert [warning.partition(":")[0] for warning in told] == [
        "tuning, 2 questions",
        "held-out, 1 question",
        "all, 3 questions",
    ]


def test_the_json_has_everything_unrounded(tmp_path: Path) -> None:
    page(tmp_path)
    record = json.loads((tmp_path / "quality.json").read_bytes())
    assert record["machine"]["cpu"] == "Some CPU"
    report = record["report"]
    assert report["splits"][2]["scores"]["dense"]["recall@1"]["mean"] == pytest.approx(1 / 3, abs=1e-12)
    assert report["outcomes"][1]["found"]["dense"] == {"rank": 2, "documents": ["e.html", "b.html", "f.html", "c.html"]}


def test_the_picture_is_written_and_shown_on_the_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = write_quality_record(recorded(), tmp_path, name="quality", title="Quality", plot=True)
    assert [path.name for path in written] == ["quality.json", "quality.md", "quality.png"]
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert "(quality.png)" in (tmp_path / "quality.md").read_text(encoding="utf-8")


def test_without_matplotlib_a_picture_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda _: None)
    with pytest.raises(BadRequestError, match=r"tritonrag\[perf\]"):
        write_quality_record(recorded(), tmp_path / "out", name="quality", title="", plot=True)
    assert not (tmp_path / "out").exists()


def test_the_table_fits_a_terminal_of_80_columns_with_each_cell_on_a_line() -> None:
    lines = terminal().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("recall@10 ") and "0.667 [0.00, 1.00]" in line for line in lines)
    assert any(
        line.split() == ["hybrid", "-", "dense", "hybrid", "-", "lexical", "lexical", "-", "dense"] for line in lines
    )


def test_the_table_stars_a_difference_beyond_noise() -> None:
    assert "+1.000 [+1.00, +1.00]*" in terminal(CLEAR)
    assert "+0.000 [+0.00, +0.00]*" not in terminal(CLEAR)
    assert "]*" not in terminal()


def test_cells_have_signs_where_they_are_differences_and_no_negative_nought() -> None:
    assert score_cell(Estimate(mean=0.81234, low=0.7, high=0.9)) == "0.812 [0.70, 0.90]"
    assert difference_cell(Estimate(mean=-0.0001, low=-0.2, high=0.004)) == "+0.000 [-0.20, +0.00]"


def test_measuring_again_gives_the_same_record(tmp_path: Path) -> None:
    again = measure(QUESTIONS, DOCUMENTS, SEARCH, plan=QualityPlan())
    assert page(tmp_path / "one") == page(tmp_path / "two", again)
