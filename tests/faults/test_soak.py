"""A minute of the soak that `make soak` runs for an hour: all requests end as they should, and nothing runs away.

A minute tells little of an hour: its bound is that nothing grows by a tenth, which an hour's trend would show sharper.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOM_MIB = 16  # beside a tenth: a process may still be filling its pools


def test_a_minute_of_everything_leaves_everything_as_it_was(
    index_dir: Path, embedder_dir: Path, tmp_path: Path
) -> None:
    folders = ["--index", str(index_dir), "--embedder", str(embedder_dir), "--output", str(tmp_path)]
    short = [
        "--minutes",
        "1",
        "--warm-up-share",
        "0.4",
        "--sample-s",
        "1",
        "--change-s",
        "5",
        "--count",
        "50",
        "--no-plot",
    ]
    command = [sys.executable, "-m", "tritonrag_perf.soak", *folders, *short]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    record = json.loads((tmp_path / "soak.json").read_text())
    assert record["trouble"] == "", ended.stderr
    assert record["failures"] == {}, record["named"]
    assert set(record["requests"]) == {"search", "ask", "stream", "cancel", "bad"}
    assert {"add", "delete", "merge"} <= set(record["changes"])
    assert str(tmp_path) not in (tmp_path / "soak.md").read_text()
    for name, trend in record["trends"].items():
        room = ROOM_MIB if name.endswith("MiB") else 4
        assert trend["grown"] <= 0.1 * trend["level"] + room, (name, trend)
