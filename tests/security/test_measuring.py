"""Measuring reads what a server keeps to itself: against one that does, it says how to start one that does not."""

from pathlib import Path

import pytest

from tritonrag import cli
from tritonrag.launcher import RunningServer
from tritonrag_client.errors import DeniedError
from tritonrag_perf.load import Load, Windows
from tritonrag_perf.perf_analyzer import PerfAnalyzer
from tritonrag_perf.questions import write_input_data
from tritonrag_perf.server_time import ServerStatistics

OPTIONS = r"--open-api model-config --open-api statistics"


def test_bench_says_what_to_open(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("questions.txt").write_text("What is a closure?\n")
    options = ["--questions", "questions.txt", "--model", "retrieve", "--output", "out", "--quick", "--no-plot"]
    assert cli.run_command(["bench", "--url", server.grpc_url, *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("tritonrag: denied: ")
    assert server.grpc_url in error
    assert OPTIONS in error


def test_perf_analyzer_says_it_too(server: RunningServer, tmp_path: Path) -> None:
    load = Load(model="retrieve", concurrency=1)
    data = write_input_data(tmp_path / "questions.json", ["What is a closure?"], load, stream=False, max_tokens=None)
    analyzer = PerfAnalyzer.locate(tmp_path)
    with pytest.raises(DeniedError, match=OPTIONS):
        analyzer.run(load, Windows(window_s=0.2), url=server.grpc_url, input_data=data)


def test_counters_are_read_with_the_key_and_not_without(server: RunningServer) -> None:
    with ServerStatistics(server.grpc_url, headers=server.admin_headers) as statistics:
        assert statistics.counters(("retrieve",))["retrieve"].failures >= 0
        assert statistics.models_of("rag") == ("rag", "retrieve", "generator")
    with ServerStatistics(server.grpc_url) as statistics:
        assert statistics.server_version()
        with pytest.raises(DeniedError, match=OPTIONS):
            statistics.counters(("retrieve",))
