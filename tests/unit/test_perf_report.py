"""The record of a sweep: a page with medians and ranges, and JSON with every round."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tritonrag_client.errors import BadRequestError
from tritonrag_perf import plot
from tritonrag_perf.figures import Figures, Round
from tritonrag_perf.load import Load, Plan
from tritonrag_perf.machine import Machine, cpu_model
from tritonrag_perf.measurement import Measurement, Percentiles
from tritonrag_perf.scrape import Scraped
from tritonrag_perf.scrape_use import Use
from tritonrag_perf.server_time import StageTime
from tritonrag_perf.spread import Spread
from tritonrag_perf.sweep import main, write_record


def percentiles(scale: float) -> Percentiles:
    return Percentiles(p50_ms=scale, p90_ms=2 * scale, p95_ms=3 * scale, p99_ms=4 * scale)


def measured(model: str, rate: float, *, stable: bool = True, failures: int = 0) -> Round:
    return Round(
        load=Load(model=model, concurrency=32),
        measurement=Measurement(
            requests=100,
            requests_per_s=rate,
            latency=percentiles(1000 / rate),
            first_response=percentiles(0.25) if model == "rag" else None,
            stable=stable,
            client_cores=0.25,
        ),
        stages=(
            StageTime(
                model=model,
                requests=100,
                failures=failures,
                batch=3.5,
                queue_ms=0.5,
                input_ms=0.1,
                infer_ms=rate / 100,
                output_ms=0.2,
            ),
        ),
    )


def figures(*rounds: Round) -> Figures:
    return Figures(
        date="2026-01-02",
        machine=Machine(cpu="Some CPU", cores=2, memory_gib=23.5, system="Linux"),
        server_version="2.51.0",
        perf_analyzer_version="2.51.0",
        command=Plan().command(),
        questions="500 questions from a file",
        stream=True,
        rounds=rounds,
    )


SWEEP = figures(
    measured("retrieve", 500),
    measured("rag", 100),
    measured("rag", 80),
    measured("retrieve", 1500),
    measured("retrieve", 600),
)


def page(folder: Path, sweep: Figures) -> str:
    write_record(sweep, folder, name="first", title="First figures", plot=False)
    return (folder / "first.md").read_text(encoding="utf-8")


def test_the_page_gives_median_and_range_over_the_rounds(tmp_path: Path) -> None:
    assert "| `retrieve` | 32 | 600 (500-1,500) |" in page(tmp_path, SWEEP)


def test_the_page_gives_the_first_response_where_there_are_several(tmp_path: Path) -> None:
    rows = [line for line in page(tmp_path, SWEEP).splitlines() if "| 32 |" in line]
    assert ["0.2 (0.2-0.2)" in row for row in rows] == [False, True]
    assert ["| - | - |" in row for row in rows] == [True, False]


def test_the_page_names_machine_versions_questions_and_command(tmp_path: Path) -> None:
    text = page(tmp_path, SWEEP)
    for fact in (
        "Some CPU, 2 cores, 23.5 GiB",
        "perf_analyzer 2.51.0",
        "500 questions from a file",
        Plan().command(),
        "2026-01-02",
    ):
        assert fact in text


def test_the_page_splits_the_servers_time_by_stage(tmp_path: Path) -> None:
    assert "| `retrieve` at 32 | `retrieve` | 3.5 | 0.50 | 0.10 | 6.00 | 0.20 |" in page(tmp_path, SWEEP)


def test_failures_are_summed_and_unsteady_measurements_are_told(tmp_path: Path) -> None:
    text = page(
        tmp_path, figures(measured("retrieve", 5, failures=2), measured("retrieve", 5, stable=False, failures=1))
    )
    assert "| 3 |\n" in text
    assert "In 1 of 2 measurements" in text


def test_a_steady_sweep_does_not_mention_unsteadiness(tmp_path: Path) -> None:
    assert "asked for" not in page(tmp_path, SWEEP)


def test_the_json_keeps_every_round(tmp_path: Path) -> None:
    page(tmp_path, SWEEP)
    rounds = json.loads((tmp_path / "first.json").read_bytes())["rounds"]
    assert [r["measurement"]["requests_per_s"] for r in rounds] == [500, 100, 80, 1500, 600]


def test_the_picture_is_written_and_shown_on_the_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = write_record(SWEEP, tmp_path, name="first", title="First figures", plot=True)
    assert [path.name for path in written] == ["first.json", "first.md", "first.png"]
    assert (tmp_path / "first.png").read_bytes().startswith(b"\x89PNG")
    assert "(first.png)" in (tmp_path / "first.md").read_text(encoding="utf-8")


def test_without_matplotlib_a_picture_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda _: None)
    with pytest.raises(BadRequestError, match=r"tritonrag\[perf\]"):
        write_record(SWEEP, tmp_path / "out", name="first", title="", plot=True)
    assert not (tmp_path / "out").exists()


def test_a_spread_is_median_and_extremes() -> None:
    assert Spread.of([3, 1, 10, 2]) == Spread(median=2.5, low=1, high=10)


def test_the_machine_tells_its_processor_and_its_memory() -> None:
    machine = Machine.this()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_gib > 0


def test_where_linux_names_no_processor_the_architecture_stands_in(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\n")
    assert cpu_model(tmp_path / "cpuinfo") == cpu_model(tmp_path / "missing") != ""


def test_the_command_ends_with_the_message_where_the_questions_are_missing(tmp_path: Path) -> None:
    options = [
        "--url",
        "127.0.0.1:1",
        "--questions",
        str(tmp_path / "no.txt"),
        "--output",
        str(tmp_path / "out"),
        "--no-plot",
    ]
    with pytest.raises(SystemExit, match=r"bad_request: the questions in .*no\.txt"):
        main(options)
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_the_message_where_the_server_is_missing(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("What is json?\n")
    options = [
        "--url",
        "127.0.0.1:1",
        "--questions",
        str(tmp_path / "q.txt"),
        "--output",
        str(tmp_path / "out"),
        "--no-plot",
    ]
    with pytest.raises(SystemExit, match=r"unavailable: .*127\.0\.0\.1:1"):
        main(options)


def with_use(one: Round, server_cpu_ms: float | None, metrics: Scraped | None = None) -> Round:
    memory = None if server_cpu_ms is None else 2**20 * 300
    use = Use(questions=100, client_cpu_ms=0.5, server_cpu_ms=server_cpu_ms, server_pss_bytes=memory, metrics=metrics)
    return replace(one, use=use)


def test_what_a_question_costs_is_told_for_server_and_client_apart(tmp_path: Path) -> None:
    text = page(tmp_path, figures(*(with_use(measured("retrieve", 500), ms) for ms in (2, 3, 7))))
    assert "| `retrieve` at 32 | 3.00 (2.00-7.00) | 0.50 (0.50-0.50) | 300 (300-300) |" in text
    assert "What the metrics say" not in text


def test_a_server_elsewhere_has_no_cost_and_an_older_record_no_such_table(tmp_path: Path) -> None:
    text = page(tmp_path, figures(with_use(measured("retrieve", 500), None)))
    assert "| `retrieve` at 32 | - | 0.50 (0.50-0.50) | - |" in text
    assert "What a question costs" not in page(tmp_path, SWEEP)


def test_metrics_stand_by_the_question_and_gauges_over_all_rounds(tmp_path: Path) -> None:
    seen = [
        Scraped(counters={"nv_count": growth}, gauges={"nv_queue": Spread(median=m, low=low, high=high)}, readings=3)
        for growth, m, low, high in ((100.0, 1, 0, 5), (200.0, 3, 2, 9))
    ]
    text = page(tmp_path, figures(*(with_use(measured("retrieve", 500), 1, one) for one in seen)))
    assert "### retrieve at 32 clients" in text
    assert "| `nv_count` | 1.5 | - |" in text
    assert "| `nv_queue` | - | 2 (0-9) |" in text


def test_a_rate_and_several_questions_stand_in_place_of_clients(tmp_path: Path) -> None:
    load = Load(model="retrieve", concurrency=4, batch=8, rate_per_s=5)
    assert "| `retrieve` | 5/s, 8 each | 500 (500-500) |" in page(
        tmp_path, figures(replace(measured("retrieve", 500), load=load))
    )
