"""Two records of `tritonrag bench` held against each other: `python -m tritonrag_perf.compare OLD.json NEW.json`.

Rule, for each load and figure: better or worse where both hold, else within noise.

1. An exact two-sided Mann-Whitney test on the rounds has p of at most `alpha` (0.1, which takes 3 rounds on each side).
2. The Hodges-Lehmann ratio, the median of NEW/OLD over all pairs of rounds, is off 1 by the least effect (1.10 or 1/1.10).

A load is "faster" or "slower" as its questions/s are, or its median latency where the request rate was fixed.

Rounds of one run share that run's luck: what the machine did otherwise at another hour is in no test of rounds. Hence the least
effect, and one load in ten that did not change passes (1) by chance. To be sure, run OLD and NEW in turns.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_perf.compare_ranks import log_ratios, mann_whitney_p
from tritonrag_perf.compare_record import FIGURES, MORE_IS_BETTER, Figure, Record, read_record
from tritonrag_perf.load import Load

Verdict = Literal["faster", "slower", "within noise"]

ALPHA: Final = 0.1
LEAST_EFFECT: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a difference counts. `alpha` bounds p; `least_effect` 0.1 asks for 1.1 times as much, or as little."""

    alpha: float = ALPHA
    least_effect: float = LEAST_EFFECT

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise BadRequestError(f"alpha is {self.alpha:g}; give a probability above 0 and below 1")
        if not 0 <= self.least_effect < math.inf:
            raise BadRequestError(f"least_effect is {self.least_effect:g}; give a share of 0 or more")

    def can_tell(self, old: int, new: int) -> bool:
        """Whether so many rounds can have a p that counts: where the sides don't overlap at all."""
        return 2 / math.comb(old + new, old) <= self.alpha

    def better(self, figure: Figure, old: Sequence[float], new: Sequence[float]) -> bool | None:
        """Whether the figure became better or worse; None is within noise."""
        log_ratio = log_ratios(old, new)[1]
        if not log_ratio or abs(log_ratio) < math.log1p(self.least_effect):
            return None
        if mann_whitney_p(old, new) > self.alpha:
            return None
        return (log_ratio > 0) == (figure in MORE_IS_BETTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One figure of one load. `ratio` is NEW/OLD, with the least and the greatest over all pairs of rounds."""

    figure: Figure
    old: tuple[float, ...]
    new: tuple[float, ...]
    ratio: float
    lowest: float
    highest: float
    p: float
    better: bool | None

    @classmethod
    def of(cls, figure: Figure, old: tuple[float, ...], new: tuple[float, ...], rule: Rule) -> "Change":
        """Compare the rounds of both sides."""
        low, middle, high = (math.exp(value) for value in log_ratios(old, new))
        return cls(
            figure=figure,
            old=old,
            new=new,
            ratio=middle,
            lowest=low,
            highest=high,
            p=mann_whitney_p(old, new),
            better=rule.better(figure, old, new),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One load on both sides; `notes` are what weakens the verdict."""

    load: Load
    verdict: Verdict
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs. `differences` of conditions were waived; the loads of one side alone are named, and compared with nothing."""

    rule: Rule
    compared: tuple[Compared, ...]
    only_old: tuple[Load, ...]
    only_new: tuple[Load, ...]
    differences: tuple[str, ...]


def compare(old: Record, new: Record, *, rule: Rule | None = None, despite_differences: bool = False) -> Comparison:
    """Compare the loads that both have. Raises BadRequestError where there is none, or where conditions differ."""
    differences = tuple(
        f"{name}: {value!r} before, {new.conditions.get(name)!r} now"
        for name, value in old.conditions.items()
        if value != new.conditions.get(name)
    )
    if differences and not despite_differences:
        raise BadRequestError(
            f"the two runs can't be compared: {'; '.join(differences)}; measure both alike, or give --despite-differences"
        )
    rule = rule or Rule()
    both = [load for load in old.rounds if load in new.rounds]
    if not both:
        raise BadRequestError("the two runs have no load in common; measure the same models with the same clients")
    return Comparison(
        rule=rule,
        compared=tuple(_compare_load(load, old, new, rule) for load in both),
        only_old=tuple(load for load in old.rounds if load not in new.rounds),
        only_new=tuple(load for load in new.rounds if load not in old.rounds),
        differences=differences,
    )


def _compare_load(load: Load, old: Record, new: Record, rule: Rule) -> Compared:
    before, after = old.rounds[load], new.rounds[load]
    changes = tuple(
        Change.of(figure, before[figure], after[figure], rule)
        for figure in FIGURES
        if figure in before and figure in after
    )
    decisive = "questions_per_s" if load.rate_per_s is None else "p50_ms"
    (better,) = (change.better for change in changes if change.figure == decisive)
    return Compared(
        load=load,
        verdict="within noise" if better is None else "faster" if better else "slower",
        changes=changes,
        notes=tuple(_notes(load, old, new, rule)),
    )


def _notes(load: Load, old: Record, new: Record, rule: Rule) -> list[str]:
    rounds = [len(side.rounds[load]["questions_per_s"]) for side in (old, new)]
    notes = []
    if not rule.can_tell(*rounds):
        notes.append(f"too few rounds to tell anything ({rounds[0]} and {rounds[1]})")
    if unstable := old.unstable.get(load, 0) + new.unstable.get(load, 0):
        notes.append(f"{unstable} of {sum(rounds)} rounds did not settle")
    if load in old.failed | new.failed:
        notes.append("some rounds failed")
    return notes


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 2 and the error's message where the runs can't be compared."""
    from tritonrag_perf.compare_report import as_json, as_text  # noqa: PLC0415 - it shows what is defined here

    parser = argparse.ArgumentParser(prog="tritonrag_perf.compare", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old", type=Path, help="JSON of the run before")
    parser.add_argument("new", type=Path, help="JSON of the run after")
    parser.add_argument("--alpha", type=float, default=ALPHA, help="p up to which a difference counts")
    parser.add_argument("--least-effect", type=float, default=LEAST_EFFECT, help="share below which none counts")
    parser.add_argument("--despite-differences", action="store_true", help="compare other machines or questions too")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    options = parser.parse_args(argv)
    try:
        comparison = compare(
            read_record(options.old),
            read_record(options.new),
            rule=Rule(alpha=options.alpha, least_effect=options.least_effect),
            despite_differences=options.despite_differences,
        )
    except RagError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's message
        sys.exit(2)
    print(as_json(comparison) if options.json else as_text(comparison))  # noqa: T201 - a command's result


if __name__ == "__main__":
    main()
