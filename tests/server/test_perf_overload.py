"""`tritonrag_perf.overload` floods a real server and tells what came of it."""

import json
from pathlib import Path

from tritonrag_backends.settings import Settings
from tritonrag_perf.overload import main


def test_a_flood_is_measured(settings: Settings, tmp_path: Path) -> None:
    main(
        [
            *("--index", str(settings.index), "--embedder", str(settings.embedder.model), "--output", str(tmp_path)),
            *("--rounds", "1", "--seconds", "3", "--factors", "5", "--clients", "16", "--count", "20"),
        ]
    )
    (round_,) = json.loads((tmp_path / "overload.json").read_text())["rounds"]
    (sample,) = round_["samples"]
    assert round_["most_per_s"] > 0
    assert sample["answered"]["count"] > 0
    assert (sample["wrong"], sample["failed"]) == (0, 0)
    assert (tmp_path / "overload.md").is_file()
