"""`tritonrag bench prompt-reuse`: the table, the record, and options in their place."""

import json
import os
from pathlib import Path

import pytest
from tests.trace_made import line, write_trace

from tritonrag import cli
from tritonrag_perf.trace.layouts import LAYOUTS
from tritonrag_perf.trace.prompt_reuse import ReuseRecord
from tritonrag_perf.trace.prompt_reuse_report import table_of

Capture = pytest.CaptureFixture[str]
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "prompt-reuse.md"


@pytest.fixture(autouse=True)
def _trace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("TRITONRAG_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    write_trace(Path("trace"), [line(at, at % 3, [at % 2, 7, 5]) for at in range(6)])
    write_trace(Path("short"), [line(at, at % 3, [at % 2, 7, 5]) for at in range(6)], only_needed=True)


def run(arguments: str) -> int:
    return cli.run_command(["bench", *arguments.split()])


def test_it_prints_every_layout_with_every_cache(capsys: Capture) -> None:
    assert run("prompt-reuse --trace trace --cache-tokens 2000 --cache-tokens 900") == 0
    out = capsys.readouterr().out
    assert out.count("| unbounded |") == out.count("| 2,000 tokens |") == out.count("| 900 tokens |") == len(LAYOUTS)


def test_the_static_part_first_is_worth_something_where_the_time_stands_before_the_passages(capsys: Capture) -> None:
    write_trace(Path("long"), [line(at, at % 3, [at % 2, 7, 5]) for at in range(60)])
    assert run("prompt-reuse --trace long --json") == 0
    rows = {row["layout"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["rank"]["reused_tokens"] > rows["trace"]["reused_tokens"] > 0
    assert rows["rank"]["speed_up_of_own"] > rows["trace"]["speed_up_of_own"] == 1


def test_the_record_is_written_and_read_back(capsys: Capture) -> None:
    assert run("prompt-reuse --trace trace --output out --name mine --block-tokens 16") == 0
    assert "written: out/mine.json, out/mine.md" in capsys.readouterr().out
    data = json.loads(Path("out/mine.json").read_text())
    command = data.pop("command")
    record = ReuseRecord.from_dict(data)
    assert record.block_tokens == 16
    page = Path("out/mine.md").read_text()
    assert command in page
    assert all(row in page for row in table_of(record))
    assert str(Path.cwd()) not in page + command


def test_the_command_of_the_record_does_it_again() -> None:
    assert run("prompt-reuse --trace trace --output out --cache-tokens 2000 --block-tokens 16") == 0
    first = json.loads(Path("out/prompt-reuse.json").read_text())
    again = first["command"].replace("DIR", "trace").removeprefix("tritonrag bench ")
    assert run(f"{again} --output again") == 0
    assert json.loads(Path("again/prompt-reuse.json").read_text()) == first


def test_that_lengths_are_estimated_is_told(capsys: Capture) -> None:
    assert run("prompt-reuse --trace short --output out") == 0
    assert "lengths of system, history: estimated" in capsys.readouterr().err
    assert "lengths of system, history: they are estimated" in Path("out/prompt-reuse.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("prompt-reuse --trace nowhere", "nowhere"),
        ("prompt-reuse", "--trace"),
        ("prompt-reuse --trace trace --cache-tokens 31", "holds 31 tokens"),
        ("prompt-reuse --trace trace --block-tokens 0", "--block-tokens"),
        ("--quick prompt-reuse --trace trace", "--quick"),
        ("--output out prompt-reuse --trace trace", "--output"),
        ("", "--output"),
    ],
)
def test_what_is_wrong_is_named(arguments: str, named: str, capsys: Capture) -> None:
    assert run(arguments) == 2
    assert named in capsys.readouterr().err


def test_every_option_has_an_environment_variable(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run("prompt-reuse --help") == 0
    out = capsys.readouterr().out
    options = [row for row in out.splitlines() if "--" in row and "--help" not in row]
    assert out.count("env var: TRITONRAG_") == len(options) > 0


def test_a_variable_of_bench_does_not_stop_the_command_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONRAG_BENCH_OUTPUT", "out")
    assert run("prompt-reuse --trace trace") == 0
    assert Path("out/prompt-reuse.md").exists()


def test_the_page_in_the_manual_has_the_figures_of_its_record() -> None:
    data = json.loads(PAGE.with_suffix(".json").read_text())
    page = PAGE.read_text()
    assert data.pop("command") in page
    assert all(row in page for row in table_of(ReuseRecord.from_dict(data)))
