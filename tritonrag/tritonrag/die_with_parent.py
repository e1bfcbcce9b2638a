"""Run a program that is told to stop when the process that started it dies, however that happens.

    python -I -S die_with_parent.py PARENT_PID PROGRAM [ARGUMENT]...

The kernel sends the program SIGTERM (prctl(2), PR_SET_PDEATHSIG; kept across execve) so that a `tritonrag serve` that was
killed outright leaves no Triton behind. A file of its own, run as a script, because the alternative, `preexec_fn`, runs
Python between fork and exec, which may deadlock in a program with threads. Standard library alone, and little of it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, make sure that the parent did not die before we asked, become the program."""
    parent_pid, program = int(sys.argv[1]), sys.argv[2]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:
        sys.exit("the process that started this one is gone")
    os.execv(program, sys.argv[2:])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
