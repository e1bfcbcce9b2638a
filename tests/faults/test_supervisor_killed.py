"""`tritonrag serve` itself is killed outright: nothing of it stays, whatever else was broken at the time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.serving import PORTS, serving
from tests.waiting import wait_until
from tritonrag.processes import SHARED_MEMORY, session_members

TIDY_UP = "from tritonrag.triton_home import remove_abandoned_homes as f; f()"


@pytest.mark.parametrize("number", [None, signal.SIGKILL, signal.SIGSTOP], ids=["alone", "stub_killed", "stub_stopped"])
def test_nothing_is_orphaned_in_the_end(
    tmp_path: Path, index_dir: Path, embedder_dir: Path, number: signal.Signals | None
) -> None:
    with serving(tmp_path, index=index_dir, embedder=embedder_dir, TRITONRAG_DRAIN_TIMEOUT_S="3") as serve:
        triton = serve.triton_pid()
        [home] = serve.temporary.glob("tritonrag-home-*")
        serve.process.send_signal(signal.SIGSTOP)  # it does not mend what is broken next
        if number is not None:
            os.kill(serve.stubs("retrieve")[0].pid, number)
        serve.process.kill()
        assert serve.process.wait(10) == -signal.SIGKILL
        assert wait_until(lambda: not serve.ports_in_use(), 60), f"of {PORTS}"
        assert wait_until(lambda: not session_members(triton), 60)
        os.utime(home, (0, 0))  # as if it had been made long ago: then the next server looks at it
        environment = {**os.environ, "TMPDIR": str(serve.temporary)}
        subprocess.run([sys.executable, "-c", TIDY_UP], check=True, env=environment)
        assert list(SHARED_MEMORY.glob(f"{home.name}*")) == []
        assert not home.exists()
