"""`perf/gpu.sh` at its smallest, as tests run it: on a CPU everywhere, on a GPU where one is."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonrag_perf.gpu.sheet import read_json

ROOT = Path(__file__).parents[1]
LIMIT_S = 280


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a run came to: its exit status, the records by part, what it said on stderr, and the page."""

    status: int
    records: dict[str, dict[str, Any]]
    said: str
    page: str

    def failures(self, part: str) -> list[str]:
        """What of a part did not go as it should."""
        record = self.records[part]
        wrong = [f"{check['name']}: {check['found']}" for check in record["checks"] if not check["ok"]]
        return [*([record["error"]] if record["error"] else []), *wrong]


def run_tiny(out: Path, work: Path, parts: Sequence[str], *more: str | Path, device: str = "cpu") -> Done:
    """Run the parts at scale tiny; `work` may be shared by runs after one another."""
    command = [ROOT / "perf" / "gpu.sh", "--out", out, "--work", work, "--parts", ",".join(parts)]
    done = subprocess.run(
        [*map(str, command), "--scale", "tiny", "--device", device, *map(str, more)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (out / "gpu.json").is_file(), done.stderr[-3000:]
    records = {record["part"]: record for record in read_json(out / "gpu.json")["parts"]}
    page = (out / "gpu.md").read_text(encoding="utf-8")
    return Done(status=done.returncode, records=records, said=done.stderr, page=page)
