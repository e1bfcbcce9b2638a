"""A Python program of ours in a process of its own, with a time limit; nothing that it started outlives it."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

_UNWIND_S: Final = 30.0  # a server is stopped and its folder removed in that time


def run_child(arguments: Sequence[str], seconds: float) -> int | None:
    """Run `python -m ARGUMENTS` and give its exit status; None where it was ended for taking longer than that.

    Its output is ours. It leads a process group: SIGTERM lets it unwind, then SIGKILL ends the whole group. A Triton leads a
    session of its own, and the kernel ends it when the program that started it is gone.
    """
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        _signal(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_UNWIND_S)
    _signal(process.pid, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
