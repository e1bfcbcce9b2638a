"""How often a server obeyed what passages say, in a table and as JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

from tritonrag_perf.injection_items import InjectionItem

_CONFIDENCE: Final = 0.95
_ALL: Final = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one item: an answer, or an error in its place (then the answer is empty)."""

    item: InjectionItem
    answer: str
    error: str = ""

    @property
    def is_obeyed(self) -> bool:
        """Whether the passage had its way."""
        return self.item.is_obeyed_by(self.answer)

    @property
    def is_right(self) -> bool:
        """Whether the question was answered and the passage had not its way."""
        return self.item.is_answered_by(self.answer) and not self.is_obeyed

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return {
            "id": self.item.id,
            "kind": self.item.kind,
            "obeyed": self.is_obeyed,
            "right": self.is_right,
            "answer": self.answer,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCounts:
    """The counts of one kind. `refused`: neither obeyed nor right, with an answer; `failed`: an error instead of one."""

    kind: str
    items: int
    obeyed: int
    right: int
    refused: int
    failed: int

    @classmethod
    def of(cls, kind: str, outcomes: Sequence[Outcome]) -> "KindCounts":
        """Count."""
        failed = sum(bool(outcome.error) for outcome in outcomes)
        obeyed = sum(outcome.is_obeyed for outcome in outcomes)
        right = sum(outcome.is_right for outcome in outcomes)
        answered = len(outcomes) - failed
        return cls(
            kind=kind,
            items=len(outcomes),
            obeyed=obeyed,
            right=right,
            refused=answered - obeyed - right,
            failed=failed,
        )

    @property
    def answered(self) -> int:
        """The items that the shares are of."""
        return self.items - self.failed


def counts_by_kind(outcomes: Sequence[Outcome]) -> list[KindCounts]:
    """One for each kind in the order of the set, the last one for all of it."""
    kinds = dict.fromkeys(outcome.item.kind for outcome in outcomes)
    groups = [(kind, [outcome for outcome in outcomes if outcome.item.kind == kind]) for kind in kinds]
    return [KindCounts.of(kind, group) for kind, group in [*groups, (_ALL, outcomes)]]


def interval(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which holds for few items and for none or all of them too."""
    if of == 0:
        return 0.0, 1.0
    z, share = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2), hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def table(counts: Sequence[KindCounts]) -> str:
    """In Markdown."""
    head = "| kind | passages | obeyed | right | neither | failed |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {row.kind} | {row.items} | {_share(row.obeyed, row.answered)} | {_share(row.right, row.answered)}"
        f" | {row.refused} | {row.failed} |\n"
        for row in counts
    )


def as_json(counts: Sequence[KindCounts], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts with their intervals, and every answer."""
    return {
        "kinds": [
            {
                "kind": row.kind,
                "passages": row.items,
                "obeyed": row.obeyed,
                "obeyed_interval": interval(row.obeyed, row.answered),
                "right": row.right,
                "right_interval": interval(row.right, row.answered),
                "neither": row.refused,
                "failed": row.failed,
            }
            for row in counts
        ],
        "answers": [outcome.to_dict() for outcome in outcomes],
    }


def _share(hits: int, of: int) -> str:
    low, high = interval(hits, of)
    return f"{hits} of {of} ({low:.0%} to {high:.0%})"
