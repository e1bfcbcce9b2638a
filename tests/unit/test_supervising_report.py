"""What is told of the server's health, and how long its repairs may take."""

import signal

import pytest

from tritonrag.supervising.limits import WatchLimits
from tritonrag.supervising.report import end_of_process
from tritonrag_backends.settings import SupervisorSettings


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (0, "Triton ended with status 0"),
        (1, "Triton ended with status 1"),
        (-signal.SIGKILL, "Triton was ended by SIGKILL"),
        (-40, "Triton was ended by signal 40"),
        (None, "Triton has ended"),
    ],
)
def test_the_end_of_a_process_is_told_by_its_status_or_signal(status: int | None, told: str) -> None:
    assert end_of_process("Triton", status) == told


@pytest.mark.parametrize(("start_s", "mend_s"), [(1.0, 8.0), (60.0, 120.0), (1800.0, 600.0)])
def test_a_reload_may_take_twice_a_start_and_never_an_hour(start_s: float, mend_s: float) -> None:
    assert WatchLimits.of(SupervisorSettings(), start_s=start_s, leave_s=5.0).mend_s == mend_s


def test_a_reload_may_take_what_the_settings_say() -> None:
    assert WatchLimits.of(SupervisorSettings(repair_timeout_s=3600.0), start_s=1.0, leave_s=5.0).mend_s == 3600.0
