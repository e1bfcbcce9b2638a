"""`tritonrag plan`: a table for people, JSON for machines, a file for `serve`, and one line for what is wrong."""

import json
import subprocess
from pathlib import Path

import pytest
from test_plan_arithmetic import write_config

from tritonrag import cli
from tritonrag.planning.tables import write_table
from tritonrag_backends.settings import load_settings

Capture = pytest.CaptureFixture[str]
FITS = "plan --passages 1M --llm 8B-fp8 --gpus 1xL4 --qps 1"


pytestmark = pytest.mark.usefixtures("nothing_set")


def run(arguments: str, capsys: Capture) -> tuple[int, str, str]:
    status = cli.run_command(arguments.split())
    out, err = capsys.readouterr()
    return status, out, err


def test_help_names_every_option_with_its_variable(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    status, out, _ = run("plan --help", capsys)
    options = [line for line in out.splitlines() if "--" in line and "--help" not in line]
    assert status == 0
    assert len(options) == out.count("env var: TRITONRAG_")
    for option in ("--passages", "--llm", "--gpus", "--qps", "--time-to-first-token-ms", "--output"):
        assert option in out


def test_what_fits_ends_in_status_0_and_shows_limits_with_what_binds_them(capsys: Capture) -> None:
    status, out, err = run(FITS, capsys)
    assert (status, err) == (0, "")
    assert "does not fit" not in out
    for promised in (
        "Limits",
        "what binds",
        "bandwidth",
        "keys and values",
        "Limits are arithmetic",
        "TRITONRAG_PROFILE=gpu",
    ):
        assert promised in out


def test_what_does_not_fit_ends_in_status_1_with_the_nearest_that_does(capsys: Capture) -> None:
    status, out, _ = run(FITS.replace("--qps 1", "--qps 20"), capsys)
    assert status == 1
    assert "does not fit: the language model answers" in out
    assert "nearest that does: --gpus" in out


def test_json_holds_the_plan_in_bytes_and_seconds(capsys: Capture) -> None:
    status, out, _ = run(f"{FITS} --json", capsys)
    plan = json.loads(out)
    assert status == 0
    assert plan["fits"] is True
    assert plan["generation"]["sequences"] == 58
    assert plan["settings"]["TRITONRAG_TRTLLM_DEVICES"] == "0"
    assert plan["request"]["card"]["source"] == "NVIDIA L4 data sheet"


def test_json_of_an_overload_has_no_number_that_json_lacks(capsys: Capture) -> None:
    status, out, _ = run(f"{FITS.replace('--qps 1', '--qps 50')} --json", capsys)
    plan = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert status == 1
    assert plan["fits"] is False
    assert plan["nearest"].startswith("nearest that does")
    assert plan["generation"]["first_token_s"] is None


def test_the_settings_file_can_be_sourced_and_then_served_with(capsys: Capture, tmp_path: Path) -> None:
    status, _, err = run("plan --passages 1M --llm 8B-fp8 --gpus 4xL4 --qps 2 --output plan.env", capsys)
    assert (status, err) == (0, "settings written to plan.env\n")
    shown = subprocess.run(
        ["/bin/sh", "-c", "set -a; . ./plan.env; env"], cwd=tmp_path, capture_output=True, text=True, check=True, env={}
    ).stdout
    found = load_settings(dict(line.split("=", 1) for line in shown.splitlines() if line.startswith("TRITONRAG_")))
    assert found.trtllm.devices == "0;1;2;3"
    assert found.generator.instances == 4


def test_a_file_that_cannot_be_written_is_an_error_of_one_line(capsys: Capture) -> None:
    status, _, err = run(f"{FITS} --output missing/plan.env", capsys)
    assert status == 1
    assert err.startswith("tritonrag: unavailable: missing/plan.env can't be written")
    assert err.count("\n") == 1


def test_a_models_folder_is_read_and_goes_into_the_settings(capsys: Capture, tmp_path: Path) -> None:
    write_config(tmp_path / "llama")
    status, out, _ = run("plan --passages 1M --llm llama --gpus 1xH100 --qps 1", capsys)
    assert status == 0
    assert f"TRITONRAG_TRTLLM_MODEL={tmp_path}/llama" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--passages many --gpus 1xL4", "--passages is 'many'"),
        ("--passages 1M", "--cores and --memory-gb both are needed"),
        ("--passages 1M --gpus 1xL4 --cores 4", "--cores and --memory-gb both are needed"),
        ("--passages 1M --gpus L4", "--gpus is 'L4'"),
        ("--passages 1M --gpus 1xH9000", "H9000"),
        ("--passages 1M --gpus 1xL4 --llm big", "--llm is 'big'"),
        ("--passages 1M --gpus 1xT4 --llm 8B-fp8", "T4 has no FP8"),
        ("--passages 1M --cores 4 --memory-gb 8 --llm 135M-fp8", "a CPU does not compute in FP8"),
        ("--passages 1M --gpus 1xL4 --qps 0", "--qps is 0"),
        ("--passages 1M --gpus 1xL4 --qps nan", "--qps is nan"),
        ("--passages 1M --gpus 1xL4 --dim 0", "--dim is 0"),
        ("--passages 1M --gpus 1xL4 --recall 1.5", "--recall is 1.5"),
        ("--passages 1M --cores 4 --memory-gb 8 --retrieval gpu", "--retrieval is 'gpu'"),
        ("--passages 1M --gpus 1xL4 --time-to-first-token-ms 0", "--time-to-first-token-ms is 0"),
        ("--passages 9B --gpus 1xL4 --retrieval gpu", "no kind of index"),
    ],
)
def test_what_cannot_be_planned_is_status_2_and_one_line_with_the_way_out(
    arguments: str, said: str, capsys: Capture
) -> None:
    status, out, err = run(f"plan {arguments}", capsys)
    assert (status, out) == (2, "")
    assert err.startswith("tritonrag: bad_request: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_table_is_drawn_on_a_terminal_and_plain_elsewhere(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table("Title", [("a", "1"), ("bb", "22")], head=("name", "value"))
    assert capsys.readouterr().out == "Title\n  name  value\n  a     1\n  bb    22\n"
    write_table("Title", [])
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    write_table("Title", [("[red]a", "1")], head=("name", "value"))
    drawn = capsys.readouterr().out
    assert "[red]a" in drawn
    assert "│" in drawn
