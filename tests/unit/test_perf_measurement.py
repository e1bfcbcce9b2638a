"""perf_analyzer's files are read as it writes them; the samples were captured from perf_analyzer 2.51.0 on a real Triton."""

import json
from pathlib import Path

import pytest

from tritonrag_client.errors import InternalError
from tritonrag_perf.measurement import Percentiles, read_first_responses, read_report, read_request_count

UNARY = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,Server Compute Infer,"
    "Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency\n"
    "2,1224.59,4,755,1,29,595,234,2,1181,2387,4866,8201\n"
)
STREAMED = (
    "Concurrency,Inferences/Second,Response Throughput,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,"
    "Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency\n"
    "32,259.209,2592.09,0,113829,3,101,2391,364,0,112152,138203,146997,174462\n"
)
CONSOLE = """
Request concurrency: 4
  Client:
    Request count: 3560
    Throughput: 1180.31 infer/sec
  Server:
    Inference count: 3565
    Successful request count: 3565
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def profile(path: Path, *requests: tuple[int, list[int]]) -> Path:
    """A profile export of requests given as (sent, [received, ...]) in nanoseconds."""
    items = [{"timestamp": sent, "request_inputs": {}, "response_timestamps": received} for sent, received in requests]
    return written(
        path, json.dumps({"experiments": [{"requests": items, "window_boundaries": []}], "version": "2.51.0"})
    )


def test_a_unary_report_gives_rate_and_latency_in_ms(tmp_path: Path) -> None:
    rate, latency = read_report(written(tmp_path / "r.csv", UNARY))
    assert rate == 1224.59
    assert latency == Percentiles(p50_ms=1.181, p90_ms=2.387, p95_ms=4.866, p99_ms=8.201)


def test_a_streamed_report_has_a_column_more_and_counts_requests_not_responses(tmp_path: Path) -> None:
    rate, latency = read_report(written(tmp_path / "r.csv", STREAMED))
    assert rate == 259.209
    assert latency.p99_ms == 174.462


@pytest.mark.parametrize(
    "text",
    [
        "",
        UNARY.splitlines()[0],
        UNARY + UNARY.splitlines()[1],
        UNARY.replace("p95 latency", "p95"),
        UNARY.replace(",8201", ""),
        UNARY.replace("1224.59", "fast"),
    ],
    ids=["empty", "no row", "two rows", "a column renamed", "a cell missing", "not a number"],
)
def test_a_report_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InternalError, match="new version"):
        read_report(written(tmp_path / "r.csv", text))


def test_the_first_response_counts_and_not_the_last(tmp_path: Path) -> None:
    path = profile(
        tmp_path / "p.json", (1_000_000_000, [1_006_000_000, 1_045_000_000]), (2_000_000_000, [2_006_000_000])
    )
    assert read_first_responses(path) == Percentiles(p50_ms=6.0, p90_ms=6.0, p95_ms=6.0, p99_ms=6.0)


def test_a_request_without_response_is_left_out_of_the_first_responses(tmp_path: Path) -> None:
    assert read_first_responses(profile(tmp_path / "p.json", (0, []), (0, [7_000_000]))).p99_ms == 7.0


def test_a_profile_without_any_response_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="longer"):
        read_first_responses(profile(tmp_path / "p.json", (0, [])))


@pytest.mark.parametrize("text", ["", "[]", '{"experiments": []}', '{"experiments": [{"requests": [{}]}]}'])
def test_a_profile_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InternalError, match="not as expected"):
        read_first_responses(written(tmp_path / "p.json", text))


def test_the_request_count_is_the_clients() -> None:
    assert read_request_count(CONSOLE) == 3560


def test_a_console_without_request_count_is_refused() -> None:
    with pytest.raises(InternalError, match="no request count"):
        read_request_count("Successful request count: 3")


def test_percentiles_interpolate() -> None:
    assert Percentiles.of_ns([0, 10_000_000]) == Percentiles(p50_ms=5.0, p90_ms=9.0, p95_ms=9.5, p99_ms=9.9)
