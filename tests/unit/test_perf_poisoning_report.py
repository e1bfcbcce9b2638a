"""Shares are those of the passages given, intervals are no narrower than the questions allow, each way of asking has a row."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tritonrag_perf.machine import Machine
from tritonrag_perf.poisoning_items import ATTACKS, Attack
from tritonrag_perf.poisoning_report import (
    COMPARED,
    WAYS,
    Given,
    Guard,
    PoisoningRecord,
    Quotes,
    Trial,
    render,
    summary,
    write_poisoning,
)
from tritonrag_perf.retrieval_quality import MODES

CLEAN = Given(poisoned=(), right=(1,), found=50)
FIRST = Given(poisoned=(1, 2, 7), right=(4,), found=50)
GUARDS: tuple[Guard, ...] = ("nothing", "filter", "author's filter")


def trial(given: Sequence[Given], *, attack: Attack | None, guard: Guard, mode: str) -> Trial:
    return Trial(questions="of some.jsonl", attack=attack, guard=guard, mode=mode, given=tuple(given))  # type: ignore[arg-type]


def record(poisoned: Sequence[Given] = (FIRST, CLEAN)) -> PoisoningRecord:
    clean = [CLEAN] * len(poisoned)
    trials = [
        *(trial(clean, attack=None, guard="nothing", mode=mode) for mode in MODES),
        *(trial(clean, attack=None, guard="another tenant", mode=mode) for mode in MODES),
        *(
            trial(clean if guard == "filter" else poisoned, attack=attack, guard=guard, mode=mode)
            for attack in ATTACKS
            for guard in GUARDS
            for mode in MODES
        ),
    ]
    quotes = Quotes(
        questions="of some.jsonl", attack=ATTACKS[0], of=2, answered=2, false=1, begins=1, only=0, hollow=1, right=2
    )
    return PoisoningRecord(
        date="2026-01-01",
        machine=Machine(cpu="CPU", cores=2, memory_gib=4.0, system="Linux x86_64"),
        command="the command",
        corpus="9 passages",
        written=36,
        sets={"of some.jsonl": len(poisoned)},
        examples={"naive, 1": ["a text"]},
        trials=tuple(trials),
        quotes=(quotes,),
    )


def rows(page: str, heading: str) -> dict[str, list[str]]:
    lines = page.partition(f"### {heading}\n\n")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_ranks_are_those_of_poisoned_and_of_right_passages() -> None:
    given = Given.of([b"a", b"p", b"b", b"q"], poison=frozenset({b"p", b"q"}), right=frozenset({b"b", b"z"}))
    assert given == Given(poisoned=(2, 4), right=(3,), found=4)


@pytest.mark.parametrize(
    ("k", "poisoned", "share", "right"),
    [(1, 0, 0, 0), (2, 1, 1 / 2, 0), (3, 1, 1 / 3, 1), (4, 1, 1 / 2, 1), (9, 1, 1 / 2, 1)],
)
def test_measures_look_at_the_first_k_of_what_was_found(k: int, poisoned: float, share: float, right: float) -> None:
    given = Given(poisoned=(2, 4), right=(3,), found=4)
    assert (given.has_poison(k), given.share(k), given.has_right(k)) == pytest.approx((poisoned, share, right))


def test_of_nothing_found_nothing_is_poisoned() -> None:
    assert Given(poisoned=(), right=(), found=0).share(5) == 0


def test_none_of_many_is_not_surely_none() -> None:
    none, half, some = summary(np.array([[0, 0, 0.5], [0, 1, 0.5]] * 50))
    assert (none.mean, none.low) == (0, 0)
    assert none.high == pytest.approx(0.037, abs=1e-3)
    assert (half.low, half.high) == pytest.approx((0.404, 0.596), abs=1e-3)
    assert (some.low, some.mean, some.high) == (0.5, 0.5, 0.5)


def test_the_page_has_every_way_and_every_attack() -> None:
    found = rows(render(record()), "Questions that are given a poisoned passage")
    assert list(found) == [str(way) for way in WAYS]
    assert {len(cells) for cells in found.values()} == {1 + len(ATTACKS)}
    assert found["`dense`, 1"][:2] == ["0% (0% to 66%)", "50% (9% to 91%)"]
    assert found["`hybrid`, 5, poison of another tenant"] == ["-"] + ["0% (0% to 66%)"] * len(ATTACKS)
    assert found["`hybrid`, 5, filter: no uploads"][1] == "0% (0% to 66%)"
    assert found["`hybrid`, 5, filter: what its author calls reviewed"][1] == "50% (9% to 91%)"


def test_the_page_tells_the_share_of_places_and_what_becomes_of_the_right_passage() -> None:
    page = render(record([FIRST] * 20))
    assert rows(page, "Share of the passages given that is poisoned")["`hybrid`, 10"][1] == "30% (30% to 30%)"
    right = rows(page, "Questions that are given a right passage")
    assert right["`hybrid`, 1"][:2] == ["100% (84% to 100%)", "0% (0% to 16%)"]
    assert right["`hybrid`, 5"][1] == "100% (84% to 100%)"


def test_a_difference_is_bold_where_so_many_questions_leave_0_out() -> None:
    few, many = (render(record([FIRST] * count)) for count in (19, 20))
    name = f"{COMPARED[2][0]} - {COMPARED[2][1]}"
    assert f"| {name} | share poisoned | -25 (-25 to -25) |" in few
    assert f"| {name} | share poisoned | **-25 (-25 to -25)** |" in many
    assert f"| {name} | right | +0 (+0 to +0) |" in many


def test_the_page_tells_what_the_wall_and_the_filter_let_through() -> None:
    page = render(record())
    assert "poison of another tenant is among them 0 times of 6, and 6 times of 6" in page
    assert f"on uploads poison is among them 0 times of {2 * len(ATTACKS) * len(MODES)}." in page


def test_the_page_counts_answers() -> None:
    quoted = rows(render(record()), "What `extractive` quotes of 5 passages, `hybrid`")["naive, 1"]
    assert quoted[:2] == ["2 of 2 (34% to 100%)", "1 of 2 (9% to 91%)"]


def test_the_record_holds_figures_and_ranks(tmp_path: Path) -> None:
    data, page = write_poisoning(record(), tmp_path / "new", "mine")
    content = json.loads(data.read_text())
    (own, *_) = [one for one in content["trials"] if one["attack"] == "naive, 1" and one["guard"] == "nothing"]
    assert own["given"] == "1 2 7; 4 | -; 1"
    assert own["figures"]["share poisoned"]["10"][0] == pytest.approx(0.15)
    assert content["quotes"][0]["attack"] == "naive, 1"
    assert page.read_text().startswith("# Poisoned documents: how far they get\n")
    assert "    the command\n" in page.read_text()
