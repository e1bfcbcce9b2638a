"""More than the server can answer: what it takes it answers rightly, what it can't take is told so, and nothing is left behind."""

from collections.abc import Iterator

import pytest

from tests.faults.load import Load, Tally, take_references
from tests.server.wire import Wire
from tests.waiting import settled, wait_until
from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import EmbedderSettings, GeneratorSettings, LimitSettings, RetrieverSettings, Settings
from tritonrag_client import RagClient

REQUESTS = 2_000
RATE_PER_S = 150.0  # many times what the slow server below answers, and what a client can send beside it
MODELS = ("embedder", "retrieve", "generator")
UNREMARKABLE = {"overloaded", "deadline"}  # what a request may end with, if not with an answer


@pytest.fixture(scope="module")
def slow(settings: Settings) -> Settings:
    """One process of each model, in fp32, nothing remembered, and little may wait."""
    return settings.model_copy(
        update={
            "embedder": EmbedderSettings(model=settings.embedder.model, precision="fp32", instances=1),
            "retriever": RetrieverSettings(cache_bytes=0),
            "generator": GeneratorSettings(timeout_s=20),
            "limits": LimitSettings(waiting=32, wait_s=1, answers=16),
        }
    )


@pytest.fixture(scope="module")
def wire(slow: Settings) -> Iterator[Wire]:
    server = TritonServer()
    with server:
        connection = Wire(server.start(ServeOptions(settings=slow)))
        yield connection
        connection.close()
    assert server.check_left_behind() == []


@pytest.fixture(scope="module")
def tally(wire: Wire) -> Tally:
    """A flood, and what became of its requests."""
    references = take_references(wire.server.grpc_url)
    with Load(wire.server.grpc_url, references, rate_per_s=RATE_PER_S, deadline_s=10) as load:
        assert wait_until(lambda: len(load.tally.outcomes) > REQUESTS, deadline_s=120)
    return load.tally


def test_every_answer_is_right_and_every_request_ends_by_its_deadline(tally: Tally) -> None:
    assert tally.faults() == [], (len(tally.answered()), tally.codes())


def test_what_is_refused_bears_the_code_that_says_so(tally: Tally) -> None:
    codes = tally.codes()
    assert codes["overloaded"] > 0
    assert {one.error for one in tally.failed()} <= UNREMARKABLE, codes


def test_all_kinds_of_requests_go_on_being_answered(tally: Tally) -> None:
    assert {one.kind for one in tally.answered()} == {"embed", "search", "ask", "ask_rag"}


def test_the_refusals_are_counted(tally: Tally, wire: Wire) -> None:
    def refused() -> float:
        return sum(wire.metric("tritonrag_refused_total", model=model, code="overloaded") for model in MODELS)

    assert (
        settled(refused) >= tally.codes()["overloaded"]
    )  # some are counted twice: the model that a generation calls, and it


def test_afterwards_nothing_waits_and_a_question_is_answered(tally: Tally, wire: Wire) -> None:
    assert tally.outcomes
    assert wait_until(lambda: all(wire.metric("tritonrag_waiting", model=model) == 0 for model in MODELS))
    assert wait_until(lambda: wire.metric("tritonrag_generations_running") == 0)
    with RagClient(wire.server.grpc_url) as client:
        assert client.ask("How do I parse a JSON document?").sources


def test_searches_alone_are_refused_at_the_door_of_their_model(tally: Tally, wire: Wire) -> None:
    def refused() -> float:
        return wire.metric("tritonrag_refused_total", model="retrieve", code="overloaded")

    before = refused()
    references = take_references(wire.server.grpc_url, kinds=("search",))
    with Load(wire.server.grpc_url, references, rate_per_s=400, deadline_s=10, kinds=("search",)) as load:
        assert wait_until(lambda: load.tally.codes()["overloaded"] > 100, deadline_s=60)
    assert load.tally.faults() == []
    assert load.tally.answered()
    assert set(load.tally.codes()) == {"overloaded"}
    assert settled(refused) - before == load.tally.codes()["overloaded"]
    assert tally.outcomes
