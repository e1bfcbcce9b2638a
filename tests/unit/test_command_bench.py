"""`tritonrag bench`: what is missing is told before anything starts, and the server it started is stopped whatever happens."""

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from test_command_preflight import make_embedder, make_index
from test_perf_report import figures, measured

from tritonrag import cli
from tritonrag.commands import bench
from tritonrag_client.errors import InternalError, NotFoundError
from tritonrag_perf import plot
from tritonrag_perf.figures import Failure, Figures
from tritonrag_perf.load import Load, Plan
from tritonrag_perf.scrape_use import Use, Watch

Capture = pytest.CaptureFixture[str]


class Server:
    """Stands in for a Triton; keeps a diary."""

    diary: list[str]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.diary.append("stopped")

    def start(self, _options: object) -> Self:
        self.diary.append("started")
        return self

    grpc_url, host, metrics_port, pid = "own:1", "own", 3, 4


class Sweep:
    """Stands in for the measuring; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.result: Figures | Exception = figures(measured("retrieve", 500), measured("rag", 100))

    def __call__(self, **asked: object) -> Figures:
        self.asked = asked
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture(autouse=True)
def diary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    for name in os.environ:
        if name.startswith("TRITONRAG_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    make_embedder(tmp_path / ".tritonrag/embedder")
    make_index(tmp_path / ".tritonrag/index")
    monkeypatch.setattr(Server, "diary", [], raising=False)
    monkeypatch.setattr(bench, "TritonServer", Server)
    monkeypatch.setattr(bench, "find_binary", lambda: Path("perf_analyzer"))
    return Server.diary


@pytest.fixture(autouse=True)
def sweep(monkeypatch: pytest.MonkeyPatch) -> Sweep:
    stand_in = Sweep()
    monkeypatch.setattr(bench, "sweep", stand_in)
    return stand_in


def run(arguments: str) -> int:
    return cli.run_command(["bench", "--output", "out", "--no-plot", *shlex.split(arguments)])


def test_it_measures_a_server_of_its_own_and_stops_it(sweep: Sweep, diary: list[str]) -> None:
    assert run("") == 0
    assert diary == ["started", "stopped"]
    assert sweep.asked["url"] == "own:1"
    assert sweep.asked["watch"] == Watch(session=4, metrics="own:3")
    assert sweep.asked["plan"] == Plan(models=("retrieve", "rag"), concurrencies=(1, 32), rounds=3)


def test_a_running_server_is_measured_and_left_alone(sweep: Sweep, diary: list[str]) -> None:
    assert run("--url other:2") == 0
    assert sweep.asked["url"] == "other:2"
    assert sweep.asked["watch"] == Watch()
    assert diary == []
    assert run("--url other:2 --metrics-url other:3") == 0
    assert sweep.asked["watch"] == Watch(metrics="other:3")


def test_the_server_is_stopped_where_measuring_fails(sweep: Sweep, diary: list[str], capsys: Capture) -> None:
    sweep.result = InternalError("sorry")
    assert run("") == 1
    assert diary == ["started", "stopped"]
    assert "internal: sorry" in capsys.readouterr().err


def test_the_record_is_written_and_named(capsys: Capture) -> None:
    assert run("--name mine") == 0
    assert {path.name for path in Path("out").iterdir()} == {"mine.json", "mine.md"}
    out = capsys.readouterr().out
    assert "out/mine.md" in out
    assert "Some CPU, 2 cores" in out


def test_a_failed_measurement_is_told_and_the_rest_recorded(sweep: Sweep, capsys: Capture) -> None:
    whole = figures(measured("retrieve", 500))
    sweep.result = Figures(
        **{name: getattr(whole, name) for name in Figures.__dataclass_fields__ if name != "failures"},
        failures=(Failure(load=Load(model="rag", concurrency=1), reason="internal: sorry"),),
    )
    assert run("") == 1
    assert Path("out/first-figures.md").exists()
    assert "not measured: rag at 1 client: internal: sorry" in capsys.readouterr().err


def test_json_is_one_line_with_the_machine_the_figures_and_the_files(capsys: Capture) -> None:
    assert run("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["machine"].startswith("Some CPU")
    assert [load["questions_per_s"] for load in report["loads"]] == [500, 100]
    assert report["files"] == ["out/first-figures.json", "out/first-figures.md"]


def test_quick_is_shorter_and_what_is_given_counts_over_it(sweep: Sweep) -> None:
    run("")
    full = sweep.asked["plan"]
    run("--quick")
    quick = sweep.asked["plan"]
    assert quick.rounds * quick.windows.window_s < full.rounds * full.windows.window_s
    run("--quick --rounds 7")
    assert sweep.asked["plan"].rounds == 7


def test_quick_takes_less_than_two_minutes_for_what_is_measured_by_default_and_says_how_long(
    sweep: Sweep, capsys: Capture
) -> None:
    assert run("--quick") == 0
    least_s, most_s = sweep.asked["plan"].expected_s()
    assert most_s < 120
    assert f"4 measurements: {least_s:.0f} to {most_s:.0f} s" in capsys.readouterr().err


def test_a_rate_is_measured_instead_of_clients_unless_these_are_asked_for_too(sweep: Sweep) -> None:
    run("--request-rate 5 --request-rate 7.5 --batch 1 --batch 4")
    plan = sweep.asked["plan"]
    assert (plan.concurrencies, plan.rates_per_s, plan.batches) == ((), (5, 7.5), (1, 4))
    run("--request-rate 5 --clients 2")
    assert (sweep.asked["plan"].concurrencies, sweep.asked["plan"].rates_per_s) == ((2,), (5,))


def test_what_a_question_costs_is_told(sweep: Sweep, capsys: Capture) -> None:
    use = Use(questions=100, client_cpu_ms=0.5, server_cpu_ms=3, server_pss_bytes=2**20)
    sweep.result = figures(replace(measured("retrieve", 500), use=use), measured("rag", 100))
    assert run("") == 0
    retrieve, rag = [line for line in capsys.readouterr().out.splitlines() if "questions/s" in line]
    assert "CPU 3.00 ms a question, client's 0.50" in retrieve
    assert "CPU" not in rag
    assert run("--json") == 0
    rows = json.loads(capsys.readouterr().out)["loads"]
    assert [row["server_cpu_ms"] for row in rows] == [3, None]


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--quick --clients 4 --model rag --count 1",
        "--window-s 3 --rounds 2",
        "--request-rate 5 --batch 1 --batch 4",
        "--request-rate 5 --clients 2",
    ],
)
def test_the_command_in_the_record_measures_the_same(options: str, sweep: Sweep) -> None:
    run(options)
    first = dict(sweep.asked)
    again = first["command"].replace("DIR", ".tritonrag/index", 1).replace("DIR", "out", 1)
    assert cli.run_command([*shlex.split(again)[1:], "--no-plot"]) == 0
    assert all(sweep.asked[name] == first[name] for name in ("plan", "questions", "command"))


def test_questions_can_come_from_a_file(sweep: Sweep) -> None:
    Path("q.txt").write_text("What is this?\n")
    assert run("--questions q.txt") == 0
    assert sweep.asked["questions"].texts == ("What is this?",)


def test_without_matplotlib_that_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, diary: list[str]
) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda _: None)
    assert run("--plot") == 2
    assert "tritonrag[perf]" in capsys.readouterr().err
    assert diary == []


def test_without_perf_analyzer_that_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, diary: list[str]
) -> None:
    def none() -> Path:
        raise NotFoundError("no perf_analyzer; install it")

    monkeypatch.setattr(bench, "find_binary", none)
    assert run("") == 2
    assert "install it" in capsys.readouterr().err
    assert diary == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--index nowhere", "nowhere"),
        ("--embedder nowhere", "nowhere"),
        ("--model oracle", "'oracle'"),
        ("--window-s 0", "window_s is 0"),
        ("--clients 0", "--clients"),
        ("--rounds 0", "--rounds"),
        ("--request-rate 0", "request rate is 0"),
        ("--batch 0", "--batch"),
        ("--model rag --batch 4", "nothing to measure"),
        ("--questions nowhere.txt", "nowhere.txt"),
    ],
)
def test_what_is_wrong_is_named_before_anything_starts(
    options: str, named: str, capsys: Capture, diary: list[str]
) -> None:
    assert run(options) == 2
    assert named in capsys.readouterr().err
    assert diary == []


def test_several_clients_and_models_can_come_from_variables(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONRAG_BENCH_CLIENTS", "2 8")
    monkeypatch.setenv("TRITONRAG_BENCH_MODEL", "embedder retrieve")
    assert run("") == 0
    assert sweep.asked["plan"].concurrencies == (2, 8)
    assert sweep.asked["plan"].models == ("embedder", "retrieve")
