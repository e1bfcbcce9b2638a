"""A sweep keeps what it measured, whatever happens to the rest, and leaves no perf_analyzer running."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest
from test_perf_analyzer import program
from test_perf_report import measured

from tritonrag_client.errors import BadRequestError, InternalError, RagError, UnavailableError
from tritonrag_perf import sweep as module
from tritonrag_perf.corpus import QuestionSet
from tritonrag_perf.figures import Figures
from tritonrag_perf.load import Load, Plan, Windows
from tritonrag_perf.measurement import Measurement
from tritonrag_perf.perf_analyzer import PerfAnalyzer
from tritonrag_perf.scrape_use import Use, Watch
from tritonrag_perf.server_time import Counters

QUESTIONS = QuestionSet(texts=("Why?",), origin="from a test", options="--index DIR --count 1 --seed 7")
NOTHING = Counters(requests=0, failures=0, inferences=0, executions=0, queue_ns=0, input_ns=0, infer_ns=0, output_ns=0)


class Statistics:
    def __init__(self, url: str) -> None:
        del url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def server_version(self) -> str:
        return "1"

    def models_of(self, model: str) -> tuple[str, ...]:
        return (model,)

    def counters(self, models: tuple[str, ...]) -> dict[str, Counters]:
        return dict.fromkeys(models, NOTHING)


class Analyzer:
    """Measures, but for the loads that it is told to fail."""

    version = "2"

    def __init__(self, failing: dict[Load, RagError]) -> None:
        self.failing = failing
        self.asked: list[Load] = []

    def locate(self, _folder: Path) -> Self:
        return self

    def run(self, load: Load, _windows: Windows, *, url: str, input_data: Path) -> Measurement:
        assert url == "h:1"
        assert input_data.exists()
        self.asked.append(load)
        if load in self.failing:
            raise self.failing[load]
        return measured(load.model, 10).measurement


def run(
    monkeypatch: pytest.MonkeyPatch, failing: dict[Load, RagError], **options: object
) -> tuple[Figures, list[Load]]:
    analyzer = Analyzer(failing)
    monkeypatch.setattr(module, "ServerStatistics", Statistics)
    monkeypatch.setattr(module, "PerfAnalyzer", analyzer)
    figures = module.sweep(
        url="h:1", questions=QUESTIONS, plan=Plan(models=("retrieve", "rag"), concurrencies=(1,), rounds=2), **options
    )
    return figures, analyzer.asked


RETRIEVE, RAG = Load(model="retrieve", concurrency=1), Load(model="rag", concurrency=1)


def test_what_fails_is_told_with_its_reason_and_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    figures, _ = run(monkeypatch, {RAG: BadRequestError("too long")})
    assert figures.loads() == (RETRIEVE,)
    assert len(figures.rounds) == 2
    assert [str(failure) for failure in figures.failures] == ["rag at 1 client: bad_request: too long"] * 2


def test_once_the_server_is_gone_what_was_measured_is_kept_and_no_more_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures, asked = run(monkeypatch, {RAG: UnavailableError("gone")})
    assert asked == [RETRIEVE, RAG]
    assert len(figures.rounds) == len(figures.failures) == 1


def test_where_nothing_could_be_measured_the_first_reason_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadRequestError, match="first"):
        run(monkeypatch, {RETRIEVE: BadRequestError("first"), RAG: InternalError("second")})


def test_each_round_has_what_it_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Watch] = []

    class Watching:
        def __init__(self, watch: Watch) -> None:
            asked.append(watch)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def use(self, questions: int) -> Use:
            return Use(questions=questions, client_cpu_ms=1.0)

    monkeypatch.setattr(module, "Watching", Watching)
    watch = Watch(session=7, metrics="h:2")
    figures, _ = run(monkeypatch, {}, watch=watch)
    assert asked == [watch] * 4
    assert all(one.use == Use(questions=0, client_cpu_ms=1.0) for one in figures.rounds)


def test_a_failure_stands_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures, _ = run(monkeypatch, {RAG: BadRequestError("too long")})
    module.write_record(figures, tmp_path, name="x", title="X", plot=False)
    assert "rag at 1 client: bad_request: too long" in (tmp_path / "x.md").read_text()


def test_the_record_tells_how_the_questions_are_had_again(monkeypatch: pytest.MonkeyPatch) -> None:
    figures, _ = run(monkeypatch, {})
    assert QUESTIONS.options in figures.command
    assert "1 questions from a test" in figures.questions


def test_the_record_can_bear_the_command_of_who_called(monkeypatch: pytest.MonkeyPatch) -> None:
    figures, _ = run(monkeypatch, {}, command="do it")
    assert figures.command == "do it"


NO_REQUEST_ENDED = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --version) echo "Perf Analyzer Version 9.9"; exit 0;; -f) report=$2;; --measurement-interval) window=$2;; esac
  shift
done
echo $window >> {log}
[ $window -lt {enough} ] && echo "failed to find the requested model version" >&2 && exit 99
echo "Concurrency,Inferences/Second,p50 latency,p90 latency,p95 latency,p99 latency" > $report
echo "2,100,1000,2000,3000,4000" >> $report
echo "    Request count: 42"
"""


def test_where_no_request_ends_in_a_window_longer_ones_are_taken(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = NO_REQUEST_ENDED.replace("{log}", str(log)).replace("{enough}", "8000")
    found = PerfAnalyzer.locate(tmp_path, program(tmp_path / "pa", text))
    assert found.run(RETRIEVE, Windows(window_s=0.5), url="h:1", input_data=tmp_path).requests == 42
    assert log.read_text().split() == ["500", "2000", "8000"]


def test_where_none_ends_even_in_a_long_window_that_is_told(tmp_path: Path) -> None:
    text = NO_REQUEST_ENDED.replace("{log}", "/dev/null").replace("{enough}", "9000000")
    found = PerfAnalyzer.locate(tmp_path, program(tmp_path / "pa", text))
    with pytest.raises(InternalError, match="longer windows"):
        found.run(RETRIEVE, Windows(), url="h:1", input_data=tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_stopped_takes_its_perf_analyzer_along(number: signal.Signals, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    endless = program(
        tmp_path / "pa",
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Version 1" && exit 0\necho $$ > {ready}\nexec sleep 600\n',
    )
    text = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from tritonrag_perf import sweep\n"
        "from tritonrag_perf.load import Load, Windows\n"
        "from tritonrag_perf.perf_analyzer import PerfAnalyzer\n"
        "signal.signal(signal.SIGTERM, sweep.exit_on_signal)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background is started with it ignored
        "folder = Path(sys.argv[1])\n"
        "found = PerfAnalyzer.locate(folder, folder / 'pa')\n"
        "found.run(Load(model='retrieve', concurrency=1), Windows(), url='h:1', input_data=folder)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", text, str(endless.parent)], stderr=subprocess.PIPE, env=environment
    ) as us:
        pid = int(ready.read_text())  # a pipe: waits for perf_analyzer to have begun
        us.send_signal(number)
        us.communicate(timeout=30)
    assert not Path(f"/proc/{pid}").exists()
    assert not list(tmp_path.glob("tritonrag-perf-*"))
