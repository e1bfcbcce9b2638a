"""The open loop measures a real server: random arrivals, at a share of what it was seen to reach."""

import json
from pathlib import Path

import pytest

from tritonrag_backends.settings import Settings
from tritonrag_perf.open_loop import main


@pytest.mark.parametrize("model", ["retrieve", "rag"])
def test_one_command_measures_unloaded_maximum_and_tail(settings: Settings, tmp_path: Path, model: str) -> None:
    options = f"--model {model} --clients 2 --share 0.5 --rounds 1 --seconds 0.6 --requests 20 --threads 2 --count 20 --name tail"
    paths = ["--index", str(settings.index), "--embedder", str(settings.embedder.model), "--output", str(tmp_path)]
    main([*options.split(), *paths])
    record = json.loads((tmp_path / "tail.json").read_bytes())
    ((round_),) = record["rounds"]
    (opened,), (maximum,) = round_["opened"], round_["maxima"]
    assert opened["asked_per_s"] == pytest.approx(0.5 * maximum["requests_per_s"])
    assert opened["p99_ms"] >= opened["p50_ms"] > 0
    assert (round_["unloaded"]["clients"], maximum["clients"], opened["failed"]) == (1, 2, 0)
    assert record["lost"] == []
    assert f"# `{model}` under an open loop" in (tmp_path / "tail.md").read_text()
