"""The guard tells how far serving is from the limit, in words that the rounds bear out."""

from pathlib import Path

import pytest

from tritonrag_perf import guard
from tritonrag_perf.against_limit_report import Against, Sample
from tritonrag_perf.load import Load
from tritonrag_perf.machine import Machine

MANY, TOGETHER = guard.TO_REACH
MACHINE = Machine(cpu="Some CPU", cores=2, memory_gib=23.5, system="Linux")


def sample(load: Load, ratio: float) -> Sample:
    return Sample(
        load=load,
        served_per_s=1000 * ratio,
        limit_per_s=1000,
        served_p50_ms=1,
        served_p99_ms=2,
        limit_p50_ms=1,
        server_cpu_ms=1,
        limit_cpu_ms=1,
        client_cores=0.1,
    )


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ((0.72, 0.75, 0.8), "0.75 (0.72 to 0.80)  to reach 0.72: reached"),
        ((0.7, 0.75, 0.8), "reached at the median, not in every round"),
        ((0.6, 0.7, 0.8), "not reached at the median"),
        ((0.6, 0.65, 0.7), "0.65 (0.60 to 0.70)  to reach 0.72: not reached"),
    ],
)
def test_median_spread_and_what_is_to_be_reached_stand_in_a_line(ratios: tuple[float, ...], words: str) -> None:
    record = Against(machine=MACHINE, questions="q", samples=tuple(sample(MANY, ratio) for ratio in ratios))
    assert guard.render(record).splitlines()[-1].endswith(words)


def test_what_is_far_from_the_goal_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*_: object, **__: object) -> list[Sample]:
        return [sample(MANY, 0.1), sample(TOGETHER, 0.1)]

    monkeypatch.setattr(guard, "questions_of_index", lambda *_, **__: "500 questions")
    monkeypatch.setattr(guard, "measure", measure)
    guard.main([])
    out = capsys.readouterr().out
    assert "retrieve at 64 clients" in out
    assert "retrieve at 4 clients, 32 questions a request" in out
    assert out.count("not reached") == 2


def test_what_could_not_be_measured_is(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="could not measure: not_found"):
        guard.main(["--index", str(tmp_path / "nothing")])
