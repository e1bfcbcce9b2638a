"""What `python -m tritonrag_perf.faults` makes of its runs."""

import json
from pathlib import Path

import pytest

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.faults import Plan
from tritonrag_perf.faults_load import Outcome, Tally
from tritonrag_perf.faults_report import FaultRecord, FaultRun, render, write_faults
from tritonrag_perf.machine import Machine


def make_run(fault: str, *, found_s: float | None = 0.2, ready_s: float | None = 4.0, wrong: int = 0) -> FaultRun:
    return FaultRun(
        fault=fault,
        found_s=found_s,
        ready_s=ready_s,
        last_failure_s=3.5,
        answered=100,
        failed=7,
        wrong=wrong,
        late=0,
    )


def make_record(*runs: FaultRun, servers: int = 1) -> FaultRecord:
    return FaultRecord(
        date="2026-01-02",
        machine=Machine.this(),
        command="python",
        rate_per_s=20.0,
        deadline_s=5.0,
        servers=servers,
        runs=runs,
    )


def test_the_page_has_medians_ranges_and_sums() -> None:
    page = render(make_record(make_run("kill"), make_run("kill", found_s=0.4), make_run("kill", found_s=0.3)))
    row = next(line for line in page.splitlines() if line.startswith("| kill"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "kill", "3", "0.30 (0.20 to 0.40)", "4.00 (4.00 to 4.00)", "3.50 (3.50 to 3.50)", "21", "0", "0", "300",
    ]  # fmt: skip


def test_what_was_never_mended_is_told() -> None:
    page = render(make_record(make_run("kill"), make_run("kill", ready_s=None), make_run("stop", found_s=None)))
    assert "4.00 (4.00 to 4.00), never in 1" in page
    assert "| never |" in page


def test_the_page_tells_who_was_asked_and_whether_clients_tried_again() -> None:
    assert "no second try" in render(make_record(make_run("kill")))
    page = render(make_record(make_run("kill"), servers=2))
    assert "has 2 `tritonrag serve`" in page
    assert "tries again" in page
    assert Plan(servers=2).command().endswith(" --servers 2")


def test_the_record_holds_every_run(tmp_path: Path) -> None:
    data, page = write_faults(make_record(make_run("kill"), make_run("stop")), tmp_path, "faults")
    assert [run["fault"] for run in json.loads(data.read_text())["runs"]] == ["kill", "stop"]
    assert page.read_text().startswith("# Faults under load")


@pytest.mark.parametrize(
    "given", [{"faults": ("burn",)}, {"faults": ()}, {"runs": 0}, {"servers": 0}, {"rate_per_s": 0.0}]
)
def test_a_plan_that_can_not_be_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(BadRequestError):
        Plan(**given)  # type: ignore[arg-type]


def test_the_tally_tells_failures_wrong_answers_and_late_ones_apart() -> None:
    tally = Tally(deadline_s=5.0)
    tally.outcomes += [
        Outcome(kind="embed", began_s=1.0, took_s=0.1),
        Outcome(kind="embed", began_s=2.0, took_s=0.1, error="unavailable"),
        Outcome(kind="search", began_s=3.0, took_s=0.1, wrong="passages [1] instead of [2]"),
        Outcome(kind="ask", began_s=4.0, took_s=20.0),
    ]
    assert [one.began_s for one in tally.answered()] == [1.0, 4.0]
    assert [one.began_s for one in tally.answered(after_s=2.0)] == [4.0]
    assert tally.codes() == {"unavailable": 1}
    assert [one.began_s for one in tally.faults()] == [3.0, 4.0]
