"""What the page of `tritonrag_perf.overload` says of its samples."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tritonrag_perf.machine import Machine
from tritonrag_perf.overload_report import Overload, Round, Sample, Times, render, write_overload

SAMPLE = Sample(
    factor=10,
    sent_per_s=1000,
    answered_per_s=90,
    refused_per_s=910,
    answered=Times.of([100.0] * 98 + [300.0, 400.0]),
    refused=Times.of([2.0] * 98 + [20.0, 40.0]),
    wrong=1,
    failed=2,
    failures=("UNAVAILABLE: gone",),
    late=0.01,
)


def record(*rounds: Round) -> Overload:
    return Overload(
        date="2026-01-01",
        machine=Machine(cpu="CPU", cores=2, memory_gib=4.0, system="Linux x86_64"),
        command="python -m tritonrag_perf.overload --index DIR",
        questions="200 questions",
        waiting=256,
        wait_s=2,
        precision="fp32",
        instances=1,
        seconds=60,
        rounds=rounds,
    )


def a_round(*samples: Sample, most_per_s: float = 100) -> Round:
    return Round(most_per_s=most_per_s, clients=64, closed=Times.of([640.0]), samples=samples)


def row(page: str, factor: str) -> list[str]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {factor} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_times_are_percentiles_in_milliseconds() -> None:
    times = Times.of([float(one) for one in range(1, 101)])
    assert (times.count, times.p50_ms, times.most_ms) == (100, 50.5, 100)
    assert times.p99_ms == pytest.approx(99.01)


def test_of_nothing_all_times_are_0() -> None:
    assert Times.of([]) == Times(count=0, p50_ms=0, p99_ms=0, most_ms=0)


def test_rates_are_medians_and_what_must_not_be_is_added_up() -> None:
    rounds = [a_round(replace(SAMPLE, answered_per_s=rate), most_per_s=100) for rate in (80.0, 90.0, 95.0)]
    cells = row(render(record(*rounds)), "10")
    assert cells[2:4] == ["90 (80 to 95)", "0.90 (0.80 to 0.95)"]
    assert cells[-3:-1] == ["3", "6"]


def test_every_factor_has_a_row_in_order() -> None:
    page = render(record(a_round(replace(SAMPLE, factor=3), SAMPLE, replace(SAMPLE, factor=1.5))))
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows == ["times that", "1.5", "3", "10"]


def test_the_record_holds_every_sample(tmp_path: Path) -> None:
    data, page = write_overload(record(a_round(SAMPLE)), tmp_path / "new", "overload")
    (round_,) = json.loads(data.read_text())["rounds"]
    assert round_["samples"][0]["failures"] == ["UNAVAILABLE: gone"]
    assert "python -m tritonrag_perf.overload" in page.read_text()
