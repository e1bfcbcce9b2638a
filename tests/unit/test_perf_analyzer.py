"""perf_analyzer is found and set up without root, and what it says when it fails reaches the person who runs it."""

import stat
from importlib import metadata
from pathlib import Path

import pytest

from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError, RagError, UnavailableError
from tritonrag_perf.load import Load, Windows
from tritonrag_perf.perf_analyzer import PerfAnalyzer, explain_failure
from tritonrag_perf.perf_analyzer_setup import find_binary

LOAD = Load(model="retrieve", concurrency=2)

# Stands in for perf_analyzer: writes a report where it is asked for one, and is stable only where any stability will do.
STAND_IN = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --version) echo "Perf Analyzer Version 9.9"; exit 0;; -f) report=$2;; --stability-percentage) stability=$2;; esac
  shift
done
[ {limit} -gt 0 ] && [ "$stability" != 1e+06 ] && echo "Failed to obtain stable measurement." >&2 && exit 2
echo "Concurrency,Inferences/Second,p50 latency,p90 latency,p95 latency,p99 latency" > $report
echo "2,100,1000,2000,3000,4000" >> $report
echo "    Request count: 42"
"""


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def stand_in(folder: Path, *, noisy: bool) -> PerfAnalyzer:
    return PerfAnalyzer.locate(folder, program(folder / "pa", STAND_IN.replace("{limit}", str(int(noisy)))))


def test_the_installed_one_starts_with_the_libraries_of_the_wheel(tmp_path: Path) -> None:
    found = PerfAnalyzer.locate(tmp_path)
    assert found.version[0].isdigit()
    assert found.libraries.is_relative_to(tmp_path)


def test_setting_it_up_twice_in_one_place_is_the_same(tmp_path: Path) -> None:
    assert PerfAnalyzer.locate(tmp_path) == PerfAnalyzer.locate(tmp_path)


def test_where_there_is_none_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none(package: str) -> None:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "files", none)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match="pip install perf-analyzer"):
        find_binary()


def test_one_that_is_not_there_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="pip install perf-analyzer"):
        PerfAnalyzer.locate(tmp_path, tmp_path / "missing")


def test_one_that_does_not_run_here_is_refused_with_its_reason(tmp_path: Path) -> None:
    binary = program(tmp_path / "pa", "#!/bin/sh\necho \"libc.so.6: version 'GLIBC_2.38' not found\" >&2; exit 1\n")
    with pytest.raises(NotFoundError, match=r"GLIBC_2.38.*pip install"):
        PerfAnalyzer.locate(tmp_path, binary)


def test_a_measurement_is_read_from_what_the_program_wrote(tmp_path: Path) -> None:
    measured = stand_in(tmp_path, noisy=False).run(LOAD, Windows(), url="h:1", input_data=tmp_path)
    assert (measured.requests, measured.requests_per_s, measured.latency.p99_ms) == (42, 100.0, 4.0)
    assert measured.first_response is None
    assert measured.stable


def test_on_a_noisy_machine_the_windows_are_taken_as_they_are_and_that_is_said(tmp_path: Path) -> None:
    measured = stand_in(tmp_path, noisy=True).run(LOAD, Windows(), url="h:1", input_data=tmp_path)
    assert measured.requests == 42
    assert not measured.stable


@pytest.mark.parametrize(
    ("stderr", "error", "message"),
    [
        (
            "Failed to retrieve results from inference request.\nThread [2] had error: in ensemble 'rag', bad_request: too long\n",
            BadRequestError,
            "too long",
        ),
        ("Thread [0] had error: Stub process is not healthy.\n", InternalError, "a request failed.*not healthy"),
        ("error: failed to get model metadata: failed to connect to all addresses\n", UnavailableError, "gRPC port"),
        ("error: failed to get model metadata: Request for unknown model: 'x' is not found\n", NotFoundError, "'x'"),
        ("", InternalError, "status 99: no message"),
    ],
    ids=["our error", "another error", "no server", "no model", "silence"],
)
def test_a_failed_run_ends_in_the_error_behind_it(stderr: str, error: type[RagError], message: str) -> None:
    failure = explain_failure(99, stderr)
    assert type(failure) is error
    with pytest.raises(error, match=message):
        raise failure
