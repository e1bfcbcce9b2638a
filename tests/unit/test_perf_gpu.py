"""Measuring on a GPU: records, checks, the page, time limits and the script's environment, without any of the parts."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_client.errors import BadRequestError, NotFoundError
from tritonrag_perf.gpu import __main__ as command
from tritonrag_perf.gpu import collate, encoder_part
from tritonrag_perf.gpu.card import Card, find_card
from tritonrag_perf.gpu.child import run_child
from tritonrag_perf.gpu.collate import write_records
from tritonrag_perf.gpu.page import render
from tritonrag_perf.gpu.part import Run, Wishes, perform
from tritonrag_perf.gpu.roofline import BertShape, Roof
from tritonrag_perf.gpu.sheet import PARTS, Header, PartName, Sheet, read_json
from tritonrag_perf.gpu.timing import Spread, rate, seconds_a_call
from tritonrag_perf.gpu.vectors import FARTHEST, NEAREST, kth_scores, make_vectors

ROOT = Path(__file__).parents[2]
CARD = Card(
    name="NVIDIA Test 1",
    driver="580.1",
    cuda="13.0",
    memory_mib=80_000,
    compute_capability="9.0",
    clock_mhz="1980",
    power_w="700.00",
)
SMI_TABLE = "| NVIDIA-SMI 580.1   Driver Version: 580.1   CUDA Version: 13.0     |\n"
SPREAD = Spread(median=2.0, low=1.0, high=3.0, repeats=3)


def header(part: PartName = "encoder", *, card: Card | None = CARD) -> Header:
    device = "cpu" if card is None else "cuda"
    return Header(part=part, device=device, scale="full", command="perf/gpu.sh --out DIR", card=card)  # type: ignore[arg-type]


def sheet_at(path: Path, part: PartName = "encoder", *, card: Card | None = CARD) -> Sheet:
    return Sheet(path, header(part, card=card))


def run_of(sheet: Sheet, work: Path, *, seconds: float = 60) -> Run:
    return Run(
        sheet=sheet,
        device="cpu",
        scale="tiny",
        work=work,
        embedder=work,
        index=work,
        until_s=time.monotonic() + seconds,
        wishes=Wishes(),
    )


def full_records(folder: Path) -> list[dict[str, Any]]:
    """A record of each part with a row in every table that the page knows."""
    cells: dict[str, dict[str, Any]] = {
        "roof": {"of": "torch", "flops": SPREAD, "bandwidth": SPREAD},
        "parity": {"runtime": "r", "texts": 9, "min_cosine": 0.9995, "mean_cosine": 0.9999},
        "speed": {"runtime": "r", "tokens": 16, "batch": 4, "sequences_per_s": SPREAD, "tflops": 1.5, "of_roof": 0.25},
        "kinds": {
            "rows": 1_000_000,
            "kind": "flat fp16",
            "effort": 0,
            "recall_at_10": 1.0,
            "rescored_recall_at_10": 1.0,
            "left_to_cpu": 0.0,
            "build_s": 1.0,
            "bytes": 2**20,
            **{f"batch_{batch}": SPREAD for batch in (1, 32, 1024)},
        },
        "filters": {
            "rows": 1_000_000,
            "kind": "flat",
            "share": 0.5,
            "queries": 9,
            "not_allowed": 0,
            "recall_at_10": 1.0,
            "left_to_cpu": 0.0,
        },
        "answers": {"questions": 9, "same_passages": 1.0, "score_difference": 0.001},
        "served": {"model": "`retrieve`", "clients": 4, "questions_per_s": SPREAD, "p50_ms": SPREAD, "p99_ms": SPREAD},
        "gpu_metrics": {"name": "nv_gpu_utilization", "least": 0.0, "most": 0.5},
        "streaming": {
            "side": "engine",
            "clients": 1,
            "prompt_tokens": 900.0,
            "answer_tokens": 8,
            "first_token_ms": SPREAD,
            "tokens_per_s": SPREAD,
        },
        "ratios": {"what": "tokens/s", "clients": 1, "value": SPREAD},
    }
    tables: dict[PartName, tuple[str, ...]] = {
        "encoder": ("roof", "parity", "speed"),
        "faiss": ("kinds", "filters"),
        "server": ("answers", "served", "gpu_metrics"),
        "llm": ("streaming", "ratios"),
    }
    for part, names in tables.items():
        sheet = sheet_at(folder / f"{part}.json", part)
        for name in names:
            sheet.row(name, **cells[name])
        sheet.at_least("a check", 1.0, 0.5)
        sheet.note(f"a note on {part}")
        sheet.end()
    return [read_json(folder / f"{part}.json") for part in tables]


def test_a_check_that_fails_fails_the_part_and_the_part_goes_on(tmp_path: Path) -> None:
    sheet = sheet_at(tmp_path / "encoder.json")
    sheet.at_least("cosine", 0.9, 0.999)
    sheet.at_most("leaks", 0, 0)
    sheet.row("parity", texts=3)
    sheet.end()
    record = read_json(tmp_path / "encoder.json")
    assert record["status"] == "failed"
    assert [check["ok"] for check in record["checks"]] == [False, True]
    assert record["tables"]["parity"] == [{"texts": 3}]


def test_a_number_that_is_none_holds_no_check(tmp_path: Path) -> None:
    sheet = sheet_at(tmp_path / "encoder.json")
    sheet.at_least("nan", float("nan"), 0.0)
    sheet.at_most("nan", float("nan"), 0.0)
    assert [check["ok"] for check in read_json(tmp_path / "encoder.json")["checks"]] == [False, False]


def test_a_record_says_card_driver_versions_and_command_from_its_first_moment_on(tmp_path: Path) -> None:
    sheet_at(tmp_path / "new" / "encoder.json")
    record = read_json(tmp_path / "new" / "encoder.json")
    assert record["status"] == "running"
    assert (record["card"]["name"], record["card"]["driver"]) == ("NVIDIA Test 1", "580.1")
    assert record["command"] == "perf/gpu.sh --out DIR"
    assert {"torch", "onnxruntime", "faiss-cpu"} <= record["versions"].keys()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["encoder.json"]


def test_an_error_of_any_sort_ends_a_part_and_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def out_of_memory(run: Run) -> None:
        run.sheet.row("parity", texts=1)
        raise RuntimeError("CUDA out of memory")

    sheet = sheet_at(tmp_path / "encoder.json")
    assert not perform(run_of(sheet, tmp_path), out_of_memory)
    record = read_json(tmp_path / "encoder.json")
    assert (record["status"], record["error"]) == ("failed", "RuntimeError: CUDA out of memory")
    assert record["tables"]["parity"]
    assert "Traceback" in capsys.readouterr().err


def test_only_a_missing_tensorrt_is_no_failure_of_the_encoder(tmp_path: Path) -> None:
    sheet = sheet_at(tmp_path / "encoder.json")
    run = run_of(sheet, tmp_path)
    encoder_part._could_not_open(run, "ONNX Runtime, TensorrtExecutionProvider", BadRequestError("no libnvinfer"))
    assert not sheet.failed
    encoder_part._could_not_open(run, "ONNX Runtime, CUDAExecutionProvider", BadRequestError("no libcudnn"))
    record = read_json(tmp_path / "encoder.json")
    assert "no libnvinfer" in record["notes"][0]
    assert [(check["ok"], check["found"]) for check in record["checks"]] == [(False, "bad_request: no libcudnn")]


def test_what_there_is_no_time_for_is_left_out_and_said(tmp_path: Path) -> None:
    run = run_of(sheet_at(tmp_path / "encoder.json"), tmp_path, seconds=5)
    assert run.has_time_for("a little", 1)
    assert not run.has_time_for("10M vectors", 100)
    assert read_json(tmp_path / "encoder.json")["notes"] == ["left out for want of time: 10M vectors"]


@given(st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1))
def test_a_spread_is_ordered_and_a_rate_turns_it_round(values: list[float]) -> None:
    spread = Spread.of(values)
    assert min(values) == spread.low <= spread.median <= spread.high == max(values)
    turned = rate(10, spread)
    assert turned.low == 10 / spread.high
    assert turned.low <= turned.median <= turned.high


def test_every_repeat_calls_as_often_and_the_warm_up_counts_for_none() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    spread = seconds_a_call(call, repeats=3, least_s=1e-4)
    assert spread.repeats == 3
    assert 0 < spread.low <= spread.high
    assert calls > 3


def test_the_roofline_counts_a_known_encoder() -> None:
    minilm = BertShape(layers=6, hidden=384, intermediate=1536, max_tokens=256)
    weights = 6 * (4 * 384 * 384 + 2 * 384 * 1536)  # of the layers' products, 10.6 million
    assert minilm.flops(1) == 2 * weights + 6 * 4 * 384
    assert minilm.flops(256) > 256 * minilm.flops(1)
    assert minilm.least_bytes(1, 16) == 2 * (weights + 16 * 384) + 4 * 384
    roof = Roof(flops=Spread.of([1e12]), bandwidth=Spread.of([1e9]), of="")
    assert roof.least_s(2e12, 1e6) == 2.0
    assert roof.least_s(1e9, 3e9) == 3.0


def test_a_card_is_read_as_its_driver_tells_it() -> None:
    def says(program: Sequence[str]) -> str:
        return SMI_TABLE if len(program) == 1 else "NVIDIA Test 1, 580.1, 80000, 9.0, 1980, 700.00\n"

    assert find_card(says) == CARD
    assert "NVIDIA Test 1 (80,000 MiB" in str(CARD)
    assert find_card(lambda _: "") is None
    with pytest.raises(NotFoundError, match="no card as we know it"):
        find_card(lambda _: "[Insufficient Permissions]\n")


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_not_there_is_an_error_with_a_way_out() -> None:
    assert command.choose_device("auto") == command.choose_device("cpu") == "cpu"
    with pytest.raises(NotFoundError, match="--device cpu"):
        command.choose_device("cuda")


def test_the_page_says_not_run_yet_and_the_command_until_a_gpu_ran(tmp_path: Path) -> None:
    page = render([])
    assert page.startswith("# On a GPU\n\nNot run yet")
    assert "perf/gpu.sh --wheels DIR --out DIR" in page
    assert len(page.splitlines()) < 12
    sheet_at(tmp_path / "encoder.json", card=None).end()
    assert render([read_json(tmp_path / "encoder.json")]) == page


def test_the_page_in_docs_is_what_the_records_beside_it_make() -> None:
    folder = ROOT / "docs" / "benchmarks"
    records = collate.read_parts(folder / "gpu.json") if (folder / "gpu.json").exists() else []
    assert (folder / "gpu.md").read_text(encoding="utf-8") == render(records)


def test_the_page_shows_every_table_check_and_note_of_every_part(tmp_path: Path) -> None:
    page = render(full_records(tmp_path))
    assert "Not run yet" not in page
    for told in ("NVIDIA Test 1", "driver 580.1", "perf/gpu.sh --out DIR", "a note on faiss", "nv_gpu_utilization"):
        assert told in page
    assert page.count("1 of 1 checks held.") == len(PARTS)
    assert "2 (1 to 3)" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables if "flat fp16" in line or "queries/s" in line}) == 1


def test_the_page_says_which_part_failed_and_which_was_not_run(tmp_path: Path) -> None:
    sheet = sheet_at(tmp_path / "faiss.json", "faiss")
    sheet.check("placed", ok=False, found="no room", wanted="placed")
    sheet.end("it ran past its 480 s")
    page = render([read_json(tmp_path / "faiss.json")])
    assert "**This part failed.** it ran past its 480 s" in page
    assert "0 of 1 checks held." in page
    assert "| placed | no room | placed |" in page
    assert "Not run yet: encoder, server, llm." in page


def test_records_of_several_runs_become_one(tmp_path: Path) -> None:
    first = full_records(tmp_path / "first")
    write_records(first[2:], tmp_path / "out")
    sheet_at(tmp_path / "second" / "server.json", "server").end("again")
    files = [str(tmp_path / name) for name in ("first/encoder.json", "out/gpu.json", "second/server.json")]
    collate.main([*files, "--out", str(tmp_path / "out"), "--page", str(tmp_path / "page.md")])
    parts = read_json(tmp_path / "out" / "gpu.json")["parts"]
    assert [(part["part"], part["error"]) for part in parts] == [("encoder", ""), ("server", "again"), ("llm", "")]
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == render(parts)
    assert read_json(tmp_path / "page.json")["parts"] == parts


def test_a_run_without_a_gpu_leaves_the_page_of_one_with_it_alone(tmp_path: Path) -> None:
    page = tmp_path / "docs.md"
    write_records(full_records(tmp_path), tmp_path / "out", page=page)
    before = page.read_text(encoding="utf-8")
    sheet_at(tmp_path / "cpu.json", card=None).end()
    write_records([read_json(tmp_path / "cpu.json")], tmp_path / "other", page=page)
    assert page.read_text(encoding="utf-8") == before
    assert "Not run yet." in (tmp_path / "other" / "gpu.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"parts": [{"part": "other"}]}', '{"parts": [3]}'])
def test_what_is_no_record_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "gpu.json").write_text(text)
    with pytest.raises(SystemExit, match=r"gpu\.json"):
        collate.main([str(tmp_path / "gpu.json"), "--out", str(tmp_path)])


def test_a_program_that_does_not_end_is_ended_and_its_children_with_it() -> None:
    assert run_child(["http.server", "0", "--bind", "127.0.0.1"], 0.5) is None
    assert run_child(["json.tool", "--help"], 60) == 0
    assert run_child(["tritonrag_perf.gpu.part", "nothing"], 60) == 2


def options_for(out: Path, *more: str) -> argparse.Namespace:
    return command._parser().parse_args(["--out", str(out), "--device", "cpu", "--parts", "encoder,faiss", *more])


@pytest.mark.parametrize(("status", "error"), [(None, "ran past its 480 s"), (-11, "ended with status -11")])
def test_a_part_that_hangs_or_crashes_is_recorded_and_the_next_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int | None, error: str
) -> None:
    def child(arguments: Sequence[str], _seconds: float) -> int | None:
        if arguments[0].endswith("prepare"):
            return 0
        sheet = sheet_at(Path(arguments[arguments.index("--record") + 1]), arguments[1], card=None)  # type: ignore[arg-type]
        if arguments[1] == "encoder":
            sheet.row("parity", runtime="r", texts=1, min_cosine=1.0, mean_cosine=1.0)
            return status
        sheet.end()
        return 0

    monkeypatch.setattr(command, "run_child", child)
    assert not command._run(options_for(tmp_path), "again")
    encoder, faiss = read_json(tmp_path / "gpu.json")["parts"]
    assert (encoder["status"], faiss["status"]) == ("failed", "ok")
    assert error in encoder["error"]
    assert encoder["tables"]["parity"]


def test_a_part_that_dies_at_once_has_a_record_too_and_not_an_older_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet_at(tmp_path / "encoder.json", card=None).end()
    monkeypatch.setattr(command, "run_child", lambda arguments, _: 0 if arguments[0].endswith("prepare") else 1)
    assert not command._run(options_for(tmp_path), "again")
    assert {part["status"] for part in read_json(tmp_path / "gpu.json")["parts"]} == {"failed"}


def test_nothing_is_measured_where_the_preparation_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run_child", lambda _arguments, _seconds: 1)
    with pytest.raises(BadRequestError, match="could not be made"):
        command._run(options_for(tmp_path), "again")
    with pytest.raises(SystemExit):
        options_for(tmp_path, "--parts", "encoder,other")


def test_the_recorded_command_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    told = command.command_of(options_for(tmp_path, "--rows", "1M", "--work", str(tmp_path), "--scale", "tiny"))
    assert told == "perf/gpu.sh --wheels DIR --out DIR --parts encoder,faiss --rows 1M --device cpu --scale tiny"


def test_made_vectors_have_neighbours_at_the_distance_that_is_told_and_repeat() -> None:
    random = np.random.default_rng(0)
    real = random.normal(size=(50, 24)).astype(np.float32)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    made = make_vectors(real, 500, device="cpu")
    assert np.array_equal(made[:50], real)
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    cosines = np.einsum("nd,nd->n", made[50:], real[np.arange(50, 500) % 50])
    assert cosines.min() > FARTHEST - 1e-4
    assert cosines.max() < NEAREST + 1e-4
    assert np.array_equal(made, make_vectors(real, 500, device="cpu"))
    assert not np.array_equal(made, make_vectors(real, 500, device="cpu", seed=1))
    assert np.array_equal(make_vectors(real, 20, device="cpu"), real[:20])


def test_the_exact_answer_is_numpys_with_and_without_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonrag_perf.gpu.vectors._COMPARED_ROWS", 37)
    random = np.random.default_rng(0)
    vectors, queries = (random.normal(size=(rows, 8)).astype(np.float32) for rows in (200, 5))
    allowed = random.random(200) < 0.3
    for chosen in (np.ones(200, bool), allowed):
        scores = np.where(chosen, queries @ vectors.T, -np.inf)
        expected = -np.sort(-scores, axis=1)[:, 9]
        mask = None if chosen.all() else chosen
        assert np.allclose(kth_scores(vectors, queries, 10, device="cpu", allowed=mask), expected, atol=1e-5)


def script(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        [str(ROOT / "perf" / "gpu.sh"), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def make_wheel(folder: Path, name: str) -> Path:
    """A wheel of one module that says its name."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"NAME = {name!r}\n" + "# filler\n" * 100)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


def split(wheel: Path, into: Sequence[Path]) -> None:
    data = wheel.read_bytes()
    step = -(-len(data) // len(into))
    for number, folder in enumerate(into):
        (folder / f"{wheel.name}.{number:02}").write_bytes(data[number * step : (number + 1) * step])
    wheel.unlink()


def test_wheels_come_whole_or_in_pieces_in_several_loads(tmp_path: Path) -> None:
    loads = [tmp_path / "one", tmp_path / "two"]
    for load in loads:
        load.mkdir()
    make_wheel(loads[0], "carried_whole")
    split(make_wheel(tmp_path, "carried_in_pieces"), loads)
    env = tmp_path / "env"

    assert script("--collect", "--wheels", loads[0], "--env", env).returncode == 0
    early = script("--env", env, "--help")
    assert early.returncode == 2
    assert "pieces are missing of: carried_in_pieces" in early.stderr

    assert script("--collect", "--wheels", loads[1], "--env", env).returncode == 0
    assert script("--env", env, "--help").returncode == 0
    code = "import carried_whole, carried_in_pieces, torch, tritonrag_perf; print(carried_in_pieces.NAME, tritonrag_perf.__file__)"
    seen = subprocess.run(
        [str(env / "venv" / "bin" / "python"), "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert seen.stdout.split() == ["carried_in_pieces", str(ROOT / "perf" / "tritonrag_perf" / "__init__.py")]


def test_the_script_runs_the_tests_that_need_a_gpu_and_no_others() -> None:
    done = script("--test", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout
    assert "test_parts.py::test_a_part_runs_on_the_gpu" in done.stdout
    assert "GPU" in done.stdout
    assert "stand-in" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--collect"], "--collect wants"),
        (["--wheels"], "wants a folder"),
        (["--wheels", "/nonexistent", "--out", "x"], "gpu-wheels.txt"),
    ],
)
def test_the_script_says_what_is_wrong(arguments: list[str], message: str) -> None:
    done = script(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_wheels_that_are_carried_are_pinned_and_those_of_the_lock() -> None:
    lines = (ROOT / "perf" / "gpu-wheels.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("#")[0].strip().split("==") for line in lines if line and not line.startswith("#"))
    locked: dict[str, set[str]] = {}
    for name in ("gpu", "dev", "model"):
        for line in (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8").splitlines():
            if "==" in line and not line.startswith((" ", "#")):
                package, _, version = line.split()[0].partition("==")
                locked.setdefault(package, set()).add(version)
    assert len(pins) > 20
    for package, version in pins.items():
        assert version in locked[package], package


def test_records_are_json_that_others_read(tmp_path: Path) -> None:
    write_records(full_records(tmp_path), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))["parts"][0]["part"] == "encoder"
