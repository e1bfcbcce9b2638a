"""The open loop asks for a share of its round's own maximum and is held to that round's unloaded median; nothing lost is hidden."""

import json
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tritonrag_client.errors import BadRequestError, InternalError, RagError
from tritonrag_perf import open_loop
from tritonrag_perf.machine import Machine
from tritonrag_perf.open_loop import Bench, ListeningPerfAnalyzer, Plan
from tritonrag_perf.open_loop_report import Closed, Lost, Open, OpenLoop, Round, render, write_open_loop

# Stands in for perf_analyzer: writes down how it was called; 2 ms alone, 8 ms at p99; 1,000/s together, but 500/s at 8 clients;
# a streamed answer begins after 3 ms. A file `fail` beside it holds what it fails with in an open loop; with 2 clients it
# always fails.
STAND_IN = """#!/bin/sh
here=$(dirname "$0"); echo "$*" >> "$here/calls"
while [ $# -gt 0 ]; do
  case $1 in
    -f) report=$2;; --profile-export-file) profile=$2;; --concurrency-range) clients=$2;; --request-rate-range) asked=$2;;
  esac
  shift
done
[ -n "$asked" ] && [ -f "$here/fail" ] && cat "$here/fail" >&2 && exit 99
[ "$clients" = 2 ] && exit 3
case $clients in 1) rate=100; p50=2000;; 8) rate=500; p50=9000;; 64) rate=1000; p50=60000;; *) rate=$asked; p50=4000;; esac
echo "Concurrency,Inferences/Second,p50 latency,p90 latency,p95 latency,p99 latency" > $report
echo "1,$rate,$p50,6000,7000,8000" >> $report
echo '{"experiments": [{"requests": [{"timestamp": 0, "response_timestamps": [3000000, 9000000]}]}]}' > "${profile:-/dev/null}"
echo "    Request count: 4242"
[ -n "$asked" ] && echo "    [WARNING] Perf Analyzer was not able to keep up. 1.16% of the requests were delayed. "
exit 0
"""


@pytest.fixture
def bench(tmp_path: Path) -> Callable[[Plan], Bench]:
    program = tmp_path / "pa"
    program.write_text(STAND_IN)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    analyzer = ListeningPerfAnalyzer(binary=program, libraries=tmp_path, version="9.9")
    failed = iter(range(0, 7 * 100, 7))  # seven more each time it is asked
    return lambda plan: Bench(
        plan=plan,
        perf_analyzer=analyzer,
        url="h:1",
        folder=tmp_path,
        questions=("why?",),
        failures=lambda: next(failed),
    )


def asked(folder: Path) -> list[str]:
    """What was asked for, call by call: clients, or a rate with its `/s`."""
    called = [line.split() for line in (folder / "calls").read_text().splitlines()]
    return [
        call[call.index("--concurrency-range") + 1]
        if "--concurrency-range" in call
        else call[call.index("--request-rate-range") + 1] + "/s"
        for call in called
    ]


def test_rates_are_shares_of_the_best_number_of_clients_and_every_other_round_goes_backwards(
    bench: Callable[[Plan], Bench], tmp_path: Path
) -> None:
    rounds = list(bench(Plan(clients=(64, 8), shares=(0.5, 0.7), rounds=2)).rounds())
    warm_up, *measured = asked(tmp_path)
    assert warm_up == "64"
    assert measured == ["1", "64", "8", "500/s", "700/s", "64", "8", "700/s", "500/s", "1"]
    for round_ in rounds:
        assert (round_.unloaded.clients, round_.unloaded.p50_ms, round_.maximum.clients) == (1, 2.0, 64)
        assert [round_.ratio(one) for one in round_.opened] == [4.0, 4.0]
    first = rounds[0].opened[0]
    assert (first.share, first.asked_per_s, first.requests, first.late_percent, first.failed) == (
        0.5,
        500,
        4242,
        1.16,
        7,
    )


def test_the_loop_is_open_at_random_times_and_all_its_windows_count(
    bench: Callable[[Plan], Bench], tmp_path: Path
) -> None:
    list(bench(Plan(rounds=1, threads=5)).rounds())
    call = (tmp_path / "calls").read_text().splitlines()[-1]
    assert "--request-distribution poisson --async --max-threads 5" in call
    assert "--stability-percentage 1e+06 --max-trials 3" in call


@pytest.mark.parametrize(("rate_per_s", "window_s"), [(1000.0, 2.0), (10.0, 100 / 3)])
def test_a_slow_model_is_measured_for_as_long_as_a_p99_takes(rate_per_s: float, window_s: float) -> None:
    plan = Plan(seconds=6)
    assert plan.windows(plan.open(rate_per_s)).window_s == pytest.approx(window_s)
    assert plan.windows(plan.closed(1)).window_s == 2.0


def test_of_an_answer_that_streams_the_first_token_counts(bench: Callable[[Plan], Bench], tmp_path: Path) -> None:
    (round_,) = bench(Plan(model="rag", rounds=1)).rounds()
    assert (round_.unloaded.p50_ms, round_.opened[0].p99_ms) == (3.0, 3.0)
    assert json.loads((tmp_path / "questions.json").read_text())["data"][0]["stream"] == [True]
    assert "--streaming" in (tmp_path / "calls").read_text()


def test_a_measurement_that_failed_is_told_and_the_others_go_on(bench: Callable[[Plan], Bench], tmp_path: Path) -> None:
    (tmp_path / "fail").write_text("Thread [0] had error: overloaded: too many\n")
    at_work = bench(Plan(rounds=2))
    rounds = list(at_work.rounds())
    assert [(round_.unloaded.p50_ms, round_.opened) for round_ in rounds] == [(2.0, ()), (2.0, ())]
    assert [(lost.round, lost.failed, lost.reason) for lost in at_work.lost] == [
        (1, 7, "overloaded: too many"),
        (2, 7, "overloaded: too many"),
    ]
    assert "700 requests/s, 70% of the maximum" in at_work.lost[0].load


def test_where_the_server_is_gone_nothing_more_is_tried(bench: Callable[[Plan], Bench], tmp_path: Path) -> None:
    (tmp_path / "fail").write_text("failed to get model metadata: failed to connect to all addresses\n")
    at_work = bench(Plan(rounds=3))
    assert list(at_work.rounds()) == []
    assert [(lost.round, lost.failed) for lost in at_work.lost] == [(1, None)]
    assert asked(tmp_path) == ["64", "1", "64", "700/s"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "embedder"}, "'embedder'"),
        ({"rounds": 0}, "nothing to measure"),
        ({"clients": ()}, "nothing to measure"),
        ({"shares": (0.5, 0.0)}, "share is 0"),
        ({"shares": (float("nan"),)}, "share is nan"),
        ({"seconds": 0.1}, "window_s"),
    ],
)
def test_a_plan_that_can_not_be_is_refused_before_anything_starts(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        Plan(**wrong)  # type: ignore[arg-type]


def closed(clients: int, rate_per_s: float, p50_ms: float) -> Closed:
    return Closed(
        clients=clients, requests=500, requests_per_s=rate_per_s, p50_ms=p50_ms, p99_ms=2 * p50_ms, client_cores=0.25
    )


def round_of(p50_ms: float, p99_ms: float, **changed: object) -> Round:
    opened = Open(
        share=0.7,
        asked_per_s=700,
        requests=5600,
        requests_per_s=690,
        p50_ms=p50_ms + 1,
        p99_ms=p99_ms,
        late_percent=None,
        failed=0,
        client_cores=0.5,
    )
    return Round(
        unloaded=closed(1, 100, p50_ms),
        maxima=(closed(32, 900, 30), closed(64, 1000, 60)),
        opened=(replace(opened, **changed),),  # type: ignore[arg-type]
    )


def record(*rounds: Round, model: str = "retrieve", lost: Sequence[Lost] = ()) -> OpenLoop:
    return OpenLoop(
        date="2026-01-02",
        machine=Machine(cpu="a CPU", cores=2, memory_gib=8, system="Linux"),
        server_version="2.0",
        perf_analyzer_version="9.9",
        command="python -m x",
        questions="3 questions",
        model=model,
        rounds=rounds,
        lost=tuple(lost),
    )


def test_the_ratio_is_that_of_its_own_round_with_median_and_range() -> None:
    page = render(record(round_of(4, 8), round_of(2, 6), round_of(1, 9)))
    assert "| 3.0 (2.0 to 9.0) |" in page  # medians of p99 and p50 would give 4
    assert "| own maximum, 64 clients, questions/s | 1000 (1000 to 1000) |" in page
    assert "| 0.69 (0.69 to 0.69) |" in page
    assert "| below 1 % | 0 | 5,600 |" in page


def test_what_is_late_failed_few_or_lost_stands_on_the_page() -> None:
    lost = Lost(round=3, load="retrieve at 900 requests/s", failed=2, reason="too many")
    page = render(
        record(round_of(4, 8, late_percent=2.5, failed=1), round_of(4, 8, requests=999, failed=3), lost=[lost])
    )
    assert "| up to 2.5 % | 4 | 999 |" in page
    assert "fewer than 1,000 requests, whose p99 says little: 1." in page
    assert "- Not measured, and in no figure: retrieve at 900 requests/s in round 3, 2 failed: too many." in page


def test_the_page_says_what_a_latency_is_and_nothing_of_what_did_not_happen() -> None:
    assert "first token" in render(record(round_of(4, 8), model="rag"))
    page = render(record(round_of(4, 8)))
    assert "first token" not in page
    assert "fewer than" not in page
    assert "Not measured" not in page


def test_without_a_round_there_is_no_page_and_the_reason_is_kept(tmp_path: Path) -> None:
    lost = Lost(round=1, load="everything", failed=None, reason="gone")
    assert write_open_loop(record(lost=[lost]), tmp_path / "new", "tail") == [tmp_path / "new" / "tail.json"]
    assert json.loads((tmp_path / "new" / "tail.json").read_text())["lost"][0]["reason"] == "gone"


def run_main(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, records: Sequence[OpenLoop], error: RagError | None = None
) -> None:
    """The command over records that no server made."""

    def measured(*_: object) -> object:
        yield from records
        if error is not None:
            raise error

    monkeypatch.setattr(open_loop, "questions_of_index", lambda *_, **__: "questions")
    monkeypatch.setattr(open_loop, "measure", measured)
    open_loop.main(["--output", str(tmp_path), "--name", "tail"])


def test_what_was_measured_before_an_error_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="it broke"):
        run_main(monkeypatch, tmp_path, [record(round_of(4, 8))], InternalError("it broke"))
    assert len(json.loads((tmp_path / "tail.json").read_text())["rounds"]) == 1
    assert (tmp_path / "tail.md").is_file()


def test_the_command_ends_well_only_where_nothing_was_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = record(round_of(4, 8))
    run_main(monkeypatch, tmp_path, [whole, whole])
    assert capsys.readouterr().out.split() == [str(tmp_path / "tail.json"), str(tmp_path / "tail.md")]
    lost = Lost(round=2, load="everything", failed=None, reason="gone")
    with pytest.raises(SystemExit, match="not measured: everything in round 2: gone"):
        run_main(monkeypatch, tmp_path, [whole, replace(whole, lost=(lost,))])


def test_a_warm_up_that_failed_is_told_and_the_rounds_follow(bench: Callable[[Plan], Bench], tmp_path: Path) -> None:
    at_work = bench(Plan(clients=(2,), rounds=1))
    assert list(at_work.rounds()) == []
    assert [str(lost).partition(":")[0] for lost in at_work.lost] == ["the warm-up", "everything in round 1"]
    assert asked(tmp_path) == ["2", "1", "2"]
