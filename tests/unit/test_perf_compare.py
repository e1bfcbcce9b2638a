"""Two runs compared: noise is called noise, a change a change, and neither side is favoured."""

import json
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_perf_report import figures, measured

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.compare import Rule, compare, main
from tritonrag_perf.compare_ranks import log_ratios, mann_whitney_p
from tritonrag_perf.compare_record import Record, parse_record
from tritonrag_perf.compare_report import as_json, as_text
from tritonrag_perf.figures import Round
from tritonrag_perf.load import Load

RATES = st.lists(st.floats(min_value=1, max_value=1e4), min_size=1, max_size=6)
OPPOSITE = {"faster": "slower", "slower": "faster", "within noise": "within noise"}
LOAD = Load(model="retrieve", concurrency=32)


def record(*rates: float, load: Load = LOAD, **more: Any) -> Record:
    """A run with these questions/s, one a round; a question's latency is its inverse."""
    rounds: list[Round] = [replace(measured("retrieve", rate), load=load) for rate in rates]
    return parse_record(json.loads(json.dumps({**figures(*rounds).to_dict(), **more})))


def verdict(old: Record, new: Record, **rule: float) -> str:
    (one,) = compare(old, new, rule=Rule(**rule)).compared
    return one.verdict


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((100, 101, 102), (200, 201, 202), "faster"),
        ((200, 201, 202), (100, 101, 102), "slower"),
        ((100, 101, 102), (104, 105, 106), "within noise"),  # apart, but by less than the least effect
        ((100, 200, 300), (150, 250, 350), "within noise"),  # a large ratio, but the rounds overlap
        ((100, 101), (200, 201), "within noise"),  # apart by chance in one of three
        ((100,), (200,), "within noise"),
    ],
)
def test_a_change_must_be_large_and_beyond_the_rounds_own_spread(
    old: tuple[float, ...], new: tuple[float, ...], expected: str
) -> None:
    assert verdict(record(*old), record(*new)) == expected


@given(old=RATES, new=RATES)
def test_swapping_the_sides_swaps_the_verdicts(old: list[float], new: list[float]) -> None:
    there, back = compare(record(*old), record(*new)), compare(record(*new), record(*old))
    assert back.compared[0].verdict == OPPOSITE[there.compared[0].verdict]
    for one, other in zip(there.compared[0].changes, back.compared[0].changes, strict=True):
        assert other.better is (None if one.better is None else not one.better)
        assert other.p == one.p
        assert (other.ratio, other.lowest, other.highest) == pytest.approx(
            (1 / one.ratio, 1 / one.highest, 1 / one.lowest)
        )


@given(rates=RATES, effect=st.floats(min_value=0, max_value=1))
def test_a_run_against_itself_is_within_noise(rates: list[float], effect: float) -> None:
    (one,) = compare(record(*rates), record(*rates), rule=Rule(alpha=0.99, least_effect=effect)).compared
    assert one.verdict == "within noise"
    assert all(change.ratio == 1 and change.better is None for change in one.changes)


@given(rates=st.lists(st.floats(min_value=100, max_value=109), min_size=3, max_size=6), factor=st.floats(1.25, 10))
def test_rounds_that_lie_clear_of_each_other_are_never_called_noise(rates: list[float], factor: float) -> None:
    assert verdict(record(*rates), record(*(factor * rate for rate in rates))) == "faster"


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [  # by counting by hand: 2 of the 20, 70 and 252 divisions are as extreme
        ((1, 2, 3), (4, 5, 6), 2 / 20),
        ((1, 2, 3, 4), (5, 6, 7, 8), 2 / 70),
        ((5, 4, 3, 2, 1), (10, 9, 8, 7, 6), 2 / 252),
        ((1, 3), (2, 4), 4 / 6),  # rank sums 3, 4, 5, 5, 6, 7; seen 4
        ((1, 1, 1), (1, 1), 1.0),
        ((1, 1), (1, 2), 1.0),  # midranks 2, 2, 2, 4: sums 4 and 6, three of each, are equally far from 5
    ],
)
def test_p_is_the_share_of_divisions_that_are_as_extreme(
    first: tuple[float, ...], second: tuple[float, ...], p: float
) -> None:
    assert mann_whitney_p(first, second) == pytest.approx(p)


def test_p_keeps_its_promise_under_no_change() -> None:
    """Over all 70 divisions of 8 values, p <= alpha comes no more often than alpha."""
    values = range(8)
    ps = [mann_whitney_p(chosen, [v for v in values if v not in chosen]) for chosen in combinations(values, 4)]
    for alpha in (0.03, 0.1, 0.5):
        assert sum(p <= alpha for p in ps) <= alpha * len(ps)
    assert min(ps) < 0.03


def test_the_ratio_is_the_median_over_pairs() -> None:
    low, middle, high = log_ratios((1.0,), (2.0, 4.0, 8.0))
    assert (low, middle, high) == pytest.approx((0.693147, 1.386294, 2.079442), abs=1e-6)


def test_with_a_fixed_rate_latency_decides() -> None:
    load = Load(model="retrieve", concurrency=4, rate_per_s=50)
    old, new = record(100, 101, 102, load=load), record(200, 201, 202, load=load)
    steady = (50.0, 50.0, 50.0)
    old, new = (replace(side, rounds={load: {**side.rounds[load], "questions_per_s": steady}}) for side in (old, new))
    assert verdict(old, new) == "faster"


@pytest.mark.parametrize(
    "more",
    [
        {"machine": {"cpu": "Other", "cores": 2, "memory_gib": 23.5, "system": "Linux"}},
        {"machine": {"cpu": "Some CPU", "cores": 4, "memory_gib": 23.5, "system": "Linux"}},
        {"questions": "7 questions from a file"},
        {"stream": False},
    ],
)
def test_other_machines_and_questions_are_refused_unless_told(more: dict[str, Any]) -> None:
    old, new = record(100, 101, 102), record(200, 201, 202, **more)
    with pytest.raises(BadRequestError, match="--despite-differences"):
        compare(old, new)
    comparison = compare(old, new, despite_differences=True)
    assert comparison.compared[0].verdict == "faster"
    assert "although they differ" in as_text(comparison)


def test_too_few_rounds_unstable_and_failed_ones_are_noted() -> None:
    shaky = measured("retrieve", 100, stable=False)
    data = {**figures(shaky).to_dict(), "failures": [{"load": asdict(LOAD), "reason": "gone"}]}
    text = as_text(compare(record(100), parse_record(json.loads(json.dumps(data)))))
    assert "too few rounds to tell anything (1 and 1)" in text
    assert "1 of 2 rounds did not settle" in text
    assert "some rounds failed" in text


def test_enough_rounds_are_not_noted() -> None:
    assert compare(record(1, 2, 3), record(4, 5, 6)).compared[0].notes == ()


def test_loads_of_one_side_are_named() -> None:
    both = [replace(measured("retrieve", 100), load=load) for load in (LOAD, Load(model="rag", concurrency=1))]
    wide = parse_record(json.loads(json.dumps(figures(*both).to_dict())))
    comparison = compare(record(100), wide)
    assert [str(load) for load in comparison.only_new] == ["rag at 1 client"]
    assert "Only in the new run: rag at 1 client" in as_text(comparison)
    with pytest.raises(BadRequestError, match="no load in common"):
        compare(record(100), record(100, load=Load(model="rag", concurrency=1)))


def test_a_record_from_before_batches_and_rates_is_understood() -> None:
    old = figures(measured("retrieve", 100)).to_dict()
    (one,) = old["rounds"]
    old["rounds"] = [{**one, "load": {"model": "retrieve", "concurrency": 32}}]
    del old["rounds"][0]["use"], old["failures"]
    assert verdict(parse_record(json.loads(json.dumps(old))), record(100)) == "within noise"


def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(tmp_path / "old.json"), str(tmp_path / "new.json")]
    for path, rates in zip(paths, ((100, 101, 102), (200, 201, 202)), strict=True):
        Path(path).write_text(json.dumps(figures(*(measured("retrieve", rate) for rate in rates)).to_dict()))
    main(paths)
    table = capsys.readouterr().out
    assert (
        "| retrieve at 32 clients | **faster** | questions/s | 101 | 201 | 1.990 (1.961 to 2.020) | 0.100 | better |"
        in table
    )
    main([*paths, "--json"])
    assert json.loads(capsys.readouterr().out)["compared"][0]["verdict"] == "faster"
    main([*paths, "--alpha", "0.05"])
    assert "**within noise**" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"rounds": [{}]}', '{"rounds": [{"load": {"model": "x"}}]}']
)
def test_what_is_no_record_is_refused_in_a_line(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as end:
        main([str(path), str(path)])
    assert end.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_rule_that_can_not_be_is_refused() -> None:
    with pytest.raises(BadRequestError, match="alpha is 0"):
        Rule(alpha=0)
    with pytest.raises(BadRequestError, match="least_effect is -1"):
        Rule(least_effect=-1)


def test_json_holds_every_round() -> None:
    data = json.loads(as_json(compare(record(100, 110, 120), record(1, 2, 3))))
    assert data["compared"][0]["changes"][0]["old"] == [100, 110, 120]
