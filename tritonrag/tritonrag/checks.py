"""What `tritonrag doctor` looks at: one function for each thing, each giving what was found and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor's report. `advice` is "" where there is nothing to do."""

    name: str
    status: Status
    found: str
    advice: str = ""


def graded(name: str, found: str, *, value: float, warn_below: float, fail_below: float, advice: str) -> Check:
    """A check of an amount against two limits."""
    status: Status = "fail" if value < fail_below else "warn" if value < warn_below else "ok"
    return Check(name=name, status=status, found=found, advice="" if status == "ok" else advice)
