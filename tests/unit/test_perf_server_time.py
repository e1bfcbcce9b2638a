"""The server's counters before and after a load give the time per request of that load alone."""

import pytest
from tritonclient.grpc import service_pb2

from tritonrag_client.errors import UnavailableError
from tritonrag_perf.server_time import Counters, ServerStatistics, StageTime, stage_times


def statistics(*, requests: int, executions: int, fails: int = 0, queue_ns: int = 0) -> service_pb2.ModelStatistics:
    message = service_pb2.ModelStatistics(name="embedder", inference_count=requests, execution_count=executions)
    message.inference_stats.success.count = requests
    message.inference_stats.fail.count = fails
    message.inference_stats.queue.ns = queue_ns
    message.inference_stats.compute_input.ns = requests * 1_000_000
    message.inference_stats.compute_infer.ns = requests * 2_000_000
    message.inference_stats.compute_output.ns = requests * 3_000_000
    return message


def test_only_what_the_load_added_counts() -> None:
    before = Counters.from_statistics(statistics(requests=1000, executions=1000, fails=5, queue_ns=10**12))
    after = Counters.from_statistics(statistics(requests=1100, executions=1025, fails=7, queue_ns=10**12 + 50_000_000))
    assert stage_times({"embedder": before}, {"embedder": after}) == (
        StageTime(
            model="embedder",
            requests=100,
            failures=2,
            batch=4.0,
            queue_ms=0.5,
            input_ms=1.0,
            infer_ms=2.0,
            output_ms=3.0,
        ),
    )


def test_a_model_that_saw_no_request_took_no_time() -> None:
    idle = Counters.from_statistics(statistics(requests=7, executions=7))
    [stage] = stage_times({"a": idle}, {"a": idle})
    assert (stage.requests, stage.batch, stage.infer_ms) == (0, 0.0, 0.0)


def test_a_model_loaded_anew_in_between_is_noticed() -> None:
    before = Counters.from_statistics(statistics(requests=10, executions=10))
    after = Counters.from_statistics(statistics(requests=3, executions=3))
    with pytest.raises(UnavailableError, match="anew"):
        stage_times({"a": before}, {"a": after})


def test_a_server_that_is_not_there_is_named() -> None:
    with ServerStatistics("127.0.0.1:1") as server, pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        server.models_of("rag")
