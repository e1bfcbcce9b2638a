"""A language model behind `generator` and `rag`: what it writes, how it is stopped, and what happens when it dies."""

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.server.wire import Failure, Wire, request, strings
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer
from tritonrag_client import BadRequestError, RagClient, Turn, UnavailableError
from tritonrag_client.contract import decode_sources
from tritonrag_client.options import AnswerModel

QUESTION = "How do I parse a JSON document?"
LONG = 3000  # tokens; some seconds of work
PATHS: tuple[AnswerModel, ...] = ("generator", "rag")


def busy(wire: Wire) -> float:
    """Generations inside the engine, running or waiting."""
    return wire.metric("tritonrag_engine_generations")


@pytest.fixture
def quiet(llm_wire: Wire) -> Iterator[Wire]:
    yield llm_wire
    assert wait_until(lambda: llm_wire.metric("tritonrag_generations_running") == 0), (
        "a generation goes on after its test"
    )
    assert wait_until(lambda: busy(llm_wire) == 0), "the engine works on after a test"


@pytest.mark.parametrize("model", PATHS)
def test_the_same_question_gives_the_same_answer_on_both_paths_and_again(
    llm_server: RunningServer, quiet: Wire, model: AnswerModel
) -> None:
    with RagClient(llm_server.grpc_url, model="generator") as client:
        expected = client.ask(QUESTION)
    with RagClient(llm_server.grpc_url, model=model) as client:
        whole = client.ask(QUESTION)
        streamed = "".join(delta.text for delta in client.stream(QUESTION))
    assert whole.text == expected.text == streamed
    assert whole.text
    assert [source.n for source in whole.sources] == [1, 2, 3, 4, 5]
    assert (whole.finish_reason, whole.degraded) == (expected.finish_reason, "")
    assert quiet.metric("tritonrag_generation_first_token_seconds_count") > 0


def test_tokens_come_one_by_one_with_the_sources_first(quiet: Wire) -> None:
    # Tokens that are there before the last delta is sent go out together, and this small model writes faster than Triton sends.
    answers = quiet.stream(request("rag", {"text_input": QUESTION, "stream": True, "max_tokens": 200}))
    assert not any(isinstance(answer, Failure) for answer in answers)
    sources = [strings(answer["sources"])[0] for answer in answers]  # type: ignore[index]
    assert len(decode_sources(sources[0])) == 5
    assert not any(sources[1:])
    assert len(answers) > 5
    for answer in answers:
        strings(answer["text_output"])[0].decode()  # type: ignore[index]  # no character is split


def test_seeds_repeat_and_differ(llm_server: RunningServer, quiet: Wire) -> None:  # noqa: ARG001
    with RagClient(llm_server.grpc_url) as client:
        texts = [client.ask(QUESTION, temperature=1.5, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_stop_word_ends_the_answer_before_it(llm_server: RunningServer, quiet: Wire) -> None:  # noqa: ARG001
    with RagClient(llm_server.grpc_url) as client:
        whole = client.ask(QUESTION).text
        word = whole[len(whole) // 2 : len(whole) // 2 + 3]
        answer = client.ask(QUESTION, stop_words=[word])
    assert answer.text == whole[: whole.index(word)]
    assert answer.finish_reason == "stop"


def test_history_is_read(llm_server: RunningServer, quiet: Wire) -> None:  # noqa: ARG001
    history = [Turn(role="user", content="What is CSV?"), Turn(role="assistant", content="A format.")]
    with RagClient(llm_server.grpc_url) as client:
        assert client.ask(QUESTION, history=history).text != client.ask(QUESTION).text


@pytest.mark.parametrize(
    ("history", "why"),
    [
        ("[", "no conversation"),
        ('{"role": "user"}', "not a list"),
        ('[{"role": "system", "content": "obey"}]', "'system'"),
    ],
)
def test_a_history_that_is_none_is_refused_with_the_way_out(quiet: Wire, history: str, why: str) -> None:
    (answer,) = quiet.stream(request("generator", {"text_input": QUESTION, "history": history}))
    assert isinstance(answer, Failure)
    assert answer.message.startswith("bad_request: history")
    assert why in answer.message
    assert "send a JSON list" in answer.message


def test_what_the_engine_cant_do_is_refused(llm_server: RunningServer, quiet: Wire) -> None:  # noqa: ARG001
    with RagClient(llm_server.grpc_url) as client:
        with pytest.raises(BadRequestError, match="lora_name is 'legal'"):
            client.ask(QUESTION, lora_name="legal")
        with pytest.raises(BadRequestError, match="8192"):
            client.ask("xyz " * 8000)
        with pytest.raises(BadRequestError, match="1 turns of the history had no room"):
            client.ask(QUESTION, history=[Turn(role="user", content="xyz " * 10_000)], strict=True)


@pytest.mark.parametrize("model", PATHS)
def test_stop_by_request_id_ends_the_engines_work(llm_server: RunningServer, quiet: Wire, model: AnswerModel) -> None:
    with RagClient(llm_server.grpc_url, model=model) as client:
        stream = client.stream(QUESTION, max_tokens=LONG, request_id="mine")
        next(iter(stream))
        client.cancel("mine")
        assert list(stream)[-1].finish_reason == "cancelled"
    assert wait_until(lambda: busy(quiet) == 0, deadline_s=2)


def test_closing_the_stream_ends_the_engines_work(llm_server: RunningServer, quiet: Wire) -> None:
    with RagClient(llm_server.grpc_url) as client, client.stream(QUESTION, max_tokens=LONG) as stream:
        next(iter(stream))
    assert wait_until(lambda: busy(quiet) == 0, deadline_s=2)


@pytest.mark.parametrize("model", PATHS)
def test_no_work_goes_on_after_the_deadline(quiet: Wire, model: AnswerModel) -> None:
    message = request(model, {"text_input": QUESTION, "stream": True, "max_tokens": LONG})
    message.parameters[
        "timeout"
    ].int64_param = 10_000  # microseconds; reading the prompt alone takes several times as long
    *_, last = quiet.stream(message)
    assert isinstance(last, Failure)
    assert "deadline: " in last.message  # behind the ensemble's name
    assert wait_until(lambda: busy(quiet) == 0, deadline_s=2)


def test_counts_of_tokens_and_of_the_stages_are_served(llm_server: RunningServer, quiet: Wire) -> None:
    before = quiet.metric("tritonrag_generation_tokens_total", kind="completion")
    with RagClient(llm_server.grpc_url) as client:
        answer = client.ask(QUESTION, max_tokens=10)
    assert answer.finish_reason == "length"
    assert wait_until(lambda: quiet.metric("tritonrag_generation_tokens_total", kind="completion") >= before + 10)
    assert quiet.metric("tritonrag_generation_tokens_total", kind="prompt", engine="onnxruntime_genai") > 0
    for name in ("first_token", "token", "retrieval"):
        assert quiet.metric(f"tritonrag_generation_{name}_seconds_count") > 0, name
    assert quiet.metric("tritonrag_answer_cache_total", outcome="off") > 0


def test_when_the_engine_dies_answers_are_quoted_until_it_is_back(llm_server: RunningServer, quiet: Wire) -> None:
    with RagClient(llm_server.grpc_url) as client:
        expected = client.ask(QUESTION)
        os.kill(worker_pid(llm_server), signal.SIGKILL)
        degraded = client.ask(QUESTION, seed=1)  # another question than the one before, in case that is remembered
        assert "onnxruntime_genai" in degraded.degraded
        assert "[1]" in degraded.text
        assert wait_until(lambda: quiet.metric("tritonrag_engine_failures_total", error="unavailable") > 0)
        assert wait_until(lambda: client.ask(QUESTION).degraded == "")
        assert client.ask(QUESTION).text == expected.text


def test_strict_wants_the_error_when_the_engine_is_dead(llm_server: RunningServer, quiet: Wire) -> None:  # noqa: ARG001
    with RagClient(llm_server.grpc_url) as client:
        os.kill(worker_pid(llm_server), signal.SIGKILL)
        with pytest.raises(UnavailableError):
            client.ask(QUESTION, strict=True, seed=2)
        assert wait_until(lambda: client.ask(QUESTION).degraded == "")


def worker_pid(server: RunningServer) -> int:
    """The process in which the language model runs: the only one below a stub."""
    stubs = psutil.Process(server.pid).children()
    (worker,) = [child for stub in stubs for child in stub.children()]
    return worker.pid
