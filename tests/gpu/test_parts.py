"""Every part of `perf/gpu.sh` runs on the GPU at its smallest, with all its checks: Triton's GPU metrics are among them.

The same on a CPU: tests/unit/test_perf_gpu_parts.py and tests/server/test_perf_gpu_parts.py.
"""

from pathlib import Path

import pytest
from devices import NEEDS_FAISS, NEEDS_TORCH, on_gpu
from tests.perf_gpu import run_tiny

from tritonrag_perf.gpu.sheet import PARTS

pytestmark = pytest.mark.timeout(1200)


@pytest.mark.parametrize("part", [on_gpu(part, NEEDS_FAISS if part == "faiss" else NEEDS_TORCH) for part in PARTS])
def test_a_part_runs_on_the_gpu_and_all_its_checks_hold(part: str, tmp_path: Path) -> None:
    done = run_tiny(tmp_path / "out", tmp_path / "work", [part], device="cuda")
    assert done.failures(part) == [], done.said[-3000:]
    record = done.records[part]
    assert record["device"] == "cuda"
    assert record["card"]["name"]
    assert record["card"]["driver"]
    assert done.status == 0
