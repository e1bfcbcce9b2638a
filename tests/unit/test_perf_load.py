"""A load and its windows become perf_analyzer's options; what can't be measured is refused before anything starts."""

import pytest

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.load import Load, Plan, Windows


def test_questions_in_one_request_are_a_batch_and_a_streaming_model_takes_none() -> None:
    load = Load(model="retrieve", concurrency=4, batch=32)
    assert " ".join(load.options()).endswith("-b 32")
    assert str(load) == "retrieve at 4 clients, 32 questions a request"
    for model, batch in (("rag", 2), ("retrieve", 0)):
        with pytest.raises(BadRequestError, match=f"batch is {batch}"):
            Load(model=model, concurrency=1, batch=batch)


def test_at_a_rate_requests_are_sent_at_random_times_without_waiting_for_answers() -> None:
    load = Load(model="retrieve", concurrency=4, batch=8, rate_per_s=12.5)
    options = " ".join(load.options())
    assert "--request-rate-range 12.5 --request-distribution poisson" in options
    assert "--async --max-threads 4" in options
    assert "--concurrency-range" not in options
    assert (str(load), load.pressure) == ("retrieve at 12.5 requests/s, 8 questions a request", "12.5/s, 8 each")
    assert Load(model="rag", concurrency=4, rate_per_s=1).options().count("--async") == 1


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rate_that_can_not_be_is_refused(rate: float) -> None:
    with pytest.raises(BadRequestError, match="request rate"):
        Load(model="rag", concurrency=1, rate_per_s=rate)


def test_rates_stand_beside_clients_and_models_that_stream_take_one_question_a_request() -> None:
    plan = Plan(models=("retrieve", "rag"), concurrencies=(1,), rates_per_s=(5,), batches=(1, 4))
    assert [f"{load.model} {load.pressure}" for load in plan.loads()] == [
        "retrieve 1",
        "retrieve 1, 4 each",
        "retrieve 5/s",
        "retrieve 5/s, 4 each",
        "rag 1",
        "rag 5/s",
    ]
    assert "--concurrency 1 --request-rate 5 --batch 1 4" in plan.command()


def test_without_clients_only_rates_are_measured_and_without_either_there_is_nothing() -> None:
    plan = Plan(models=("rag",), concurrencies=(), rates_per_s=(5,))
    assert [load.pressure for load in plan.loads()] == ["5/s"]
    assert "--concurrency" not in plan.command()
    with pytest.raises(BadRequestError, match="nothing to measure"):
        Plan(concurrencies=())


def test_the_expected_duration_grows_with_rounds_loads_and_windows() -> None:
    least_s, most_s = Plan(rounds=1).expected_s()
    assert 0 < least_s < most_s
    assert Plan(rounds=3).expected_s() == pytest.approx((3 * least_s, 3 * most_s))
    assert Plan(rounds=1, windows=Windows(window_s=4)).expected_s()[0] > least_s


def test_a_batched_model_is_called_synchronously_over_grpc() -> None:
    options = Load(model="retrieve", concurrency=32).options()
    assert options == ["-m", "retrieve", "-i", "grpc", "--concurrency-range", "32"]


def test_a_decoupled_model_is_streamed_with_a_stream_for_each_client() -> None:
    options = Load(model="rag", concurrency=32).options()
    assert options[-4:] == ["--streaming", "--async", "--max-threads", "32"]


@pytest.mark.parametrize("model", ["retriever", "RAG", ""])
def test_a_model_that_a_question_can_not_drive_is_refused(model: str) -> None:
    with pytest.raises(BadRequestError, match=f"'{model}'"):
        Load(model=model, concurrency=1)


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_concurrency_below_one_is_refused(concurrency: int) -> None:
    with pytest.raises(BadRequestError, match=str(concurrency)):
        Load(model="rag", concurrency=concurrency)


def test_windows_of_time() -> None:
    options = " ".join(Windows(window_s=0.5).options())
    assert (
        options == "--measurement-mode time_windows --measurement-interval 500 --stability-percentage 25 --max-trials 6"
    )


def test_windows_of_requests_with_a_percentile() -> None:
    options = " ".join(Windows(window_requests=200, percentile=95, stability_percent=7.5).options())
    assert "count_windows" in options
    assert "--measurement-request-count 200 --percentile 95 --stability-percentage 7.5" in options


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_s": 0},
        {"window_requests": 0},
        {"stability_percent": 0},
        {"percentile": 0},
        {"percentile": 100},
        {"max_windows": 2},
    ],
)
def test_windows_that_can_not_be_are_refused_by_name(wrong: dict[str, int]) -> None:
    with pytest.raises(BadRequestError, match=next(iter(wrong))):
        Windows(**wrong)


def test_rounds_are_interleaved_and_every_other_one_runs_backwards() -> None:
    a, b = Load(model="retrieve", concurrency=1), Load(model="retrieve", concurrency=32)
    plan = Plan(models=("retrieve",), concurrencies=(1, 32), rounds=3)
    assert plan.order() == [a, b, b, a, a, b]


def test_a_load_named_twice_is_measured_once_a_round() -> None:
    assert len(Plan(models=("rag", "rag"), concurrencies=(1, 1), rounds=1).order()) == 1


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"models": ()}, {"concurrencies": ()}, {"models": ("no",)}])
def test_a_plan_of_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadRequestError):
        Plan(**wrong)  # type: ignore[arg-type]


def test_the_recorded_command_has_what_was_chosen_and_no_path() -> None:
    command = Plan(models=("rag",), concurrencies=(4, 8), rounds=2, max_tokens=9, stream=False).command()
    assert "--models rag --concurrency 4 8 --rounds 2" in command
    assert command.endswith("--max-tokens 9 --no-stream")
    assert "/" not in command
