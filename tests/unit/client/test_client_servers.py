"""Several servers: one that is gone, drains or is not ready is left for another at once, and no load is multiplied."""

import socket
from collections.abc import Iterator

import grpc
import pytest
from client_double import (
    ANSWER,
    BUSY,
    ONCE,
    Entry,
    ScriptedTriton,
    Talk,
    Value,
    delta,
    embedding,
    error,
    fails,
    final,
    running,
    says,
    search,
    slow_answer,
)

from tritonrag_client import (
    AsyncRagClient,
    BadRequestError,
    InternalError,
    NotFoundError,
    OverloadedError,
    RagClient,
    RetryPolicy,
    UnavailableError,
)
from tritonrag_client._core import Chance
from tritonrag_client._servers import Server, Servers

UNKNOWN = "Request for unknown model: 'x' is not found"
DRAINING = {
    "unary": [
        fails(grpc.StatusCode.UNAVAILABLE, "Server not ready"),
        fails(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'retrieve' has no available versions"),
        fails(grpc.StatusCode.INTERNAL, "in ensemble 'retrieve', Stub process 'embedder_0_1' is not healthy."),
    ],
    "stream": [
        fails(grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        says(error("Request for unknown model: 'generator' has no available versions"), final()),
        says(error("in ensemble 'rag', Stub process 'embedder_0_1' is not healthy."), final()),
        says(error("in ensemble 'rag', [request id: 7] Server is stopping, scheduler for model has stopped"), final()),
    ],
}


@pytest.fixture
def other() -> ScriptedTriton:
    return ScriptedTriton()


@pytest.fixture
def urls(url: str, other: ScriptedTriton) -> Iterator[list[str]]:
    with running(other) as address:
        yield [url, address]


class Once:
    """Talks with a client whose first request goes to the first server, and that never tries again."""

    def __init__(self, talk: Talk) -> None:
        self._talk, self.pauses_s = talk, talk.pauses_s

    def __call__(self, urls: list[str], method: str, text: str) -> Value:
        return self._talk(urls, method, text, client={**ONCE, "_chance": self._talk.chance(draw=0.0)})


@pytest.fixture
def once(talk: Talk) -> Once:
    return Once(talk)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_requests_go_to_the_servers_in_turn(urls: list[str], triton: ScriptedTriton, other: ScriptedTriton) -> None:
    triton.script = other.script = [embedding]
    with RagClient(urls) as client:
        for _ in range(10):
            client.embed("x")
    assert (len(triton.requests), len(other.requests)) == (5, 5)


@pytest.mark.parametrize(
    "way",
    [
        *(("search", entry) for entry in DRAINING["unary"]),
        *((method, entry) for entry in DRAINING["stream"] for method in ("ask", "stream")),
    ],
)
def test_a_request_goes_on_to_another_server_at_once(
    urls: list[str], triton: ScriptedTriton, other: ScriptedTriton, once: Once, way: tuple[str, Entry]
) -> None:
    method, entry = way
    triton.script, other.script = [entry], [search if method == "search" else ANSWER]
    once(urls, method, "Who?")
    assert (len(triton.requests), len(other.requests), once.pauses_s) == (1, 1, [])


def test_an_answer_that_has_begun_is_asked_for_nowhere_else(
    urls: list[str], triton: ScriptedTriton, other: ScriptedTriton, once: Once
) -> None:
    triton.script = [says(delta("Hello ", first=True), error("Stub process 'x' is not healthy."), final())]
    other.script = [ANSWER]
    with pytest.raises(UnavailableError):
        once(urls, "stream", "Who?")
    assert other.requests == []


def test_a_refused_connection_costs_nothing(url: str, triton: ScriptedTriton, once: Once) -> None:
    triton.script = [embedding]
    assert once([f"127.0.0.1:{free_port()}", url], "embed", "x").shape == (2,)
    assert once.pauses_s == []


def test_a_silent_address_is_left_long_before_connect_s(url: str, triton: ScriptedTriton, once: Once) -> None:
    triton.script = [embedding]
    with socket.create_server(("127.0.0.1", 0)) as hole:
        silent = f"127.0.0.1:{hole.getsockname()[1]}"
        assert once([silent, url], "embed", "x").shape == (2,)


def test_a_server_that_is_not_ready_gets_no_request(
    urls: list[str], triton: ScriptedTriton, other: ScriptedTriton, once: Once
) -> None:
    triton.ready, other.script = False, [embedding]
    once(urls, "embed", "x")
    assert (len(triton.requests), len(other.requests)) == (0, 1)


def test_where_no_server_is_ready_one_is_asked_all_the_same(
    urls: list[str], triton: ScriptedTriton, other: ScriptedTriton, once: Once
) -> None:
    triton.ready = other.ready = False
    other.script = [embedding]
    assert once(urls, "embed", "x").shape == (2,)


@pytest.mark.parametrize(("ready", "expected"), [(True, NotFoundError), (False, UnavailableError)])
def test_an_unknown_model_is_missing_where_the_server_is_ready_and_else_the_server_drains(
    url: str, triton: ScriptedTriton, talk: Talk, ready: bool, expected: type[Exception]
) -> None:
    triton.ready = ready
    triton.script = [fails(grpc.StatusCode.NOT_FOUND, UNKNOWN)]
    with pytest.raises(expected):
        talk(url, "embed", "x", client=ONCE)
    triton.script = [says(error(UNKNOWN), final())]
    with pytest.raises(expected):
        talk(url, "ask", "x", client=ONCE)


def test_a_server_that_failed_is_passed_over_until_it_is_ready_again(
    urls: list[str], triton: ScriptedTriton, other: ScriptedTriton
) -> None:
    now_s = 0.0
    triton.script = [fails(grpc.StatusCode.UNAVAILABLE, "Server not ready"), embedding]
    other.script = [embedding]
    with RagClient(urls, _chance=Chance(clock=lambda: now_s, draw=lambda: 0.0)) as client:
        for _ in range(10):
            client.embed("x")
        assert (len(triton.requests), len(other.requests)) == (1, 10)
        now_s, triton.ready = 1.0, False
        for _ in range(10):
            client.embed("x")
        assert (len(triton.requests), len(other.requests)) == (1, 20)
        now_s, triton.ready = 3.0, True
        for _ in range(10):
            client.embed("x")
        assert (len(triton.requests), len(other.requests)) == (6, 25)


def test_an_overloaded_server_is_left_with_a_pause_and_out_of_the_allowance(
    urls: list[str], triton: ScriptedTriton, other: ScriptedTriton, talk: Talk
) -> None:
    triton.script, other.script = [BUSY], [embedding]
    policy = RetryPolicy(base_s=1, max_s=1, jitter=0, spare=1, share=0)
    settings = {"retry": policy, "_chance": talk.chance(draw=0.0)}
    assert talk(urls, "embed", "x", client=settings).shape == (2,)
    assert (len(triton.requests), len(other.requests), talk.pauses_s) == (1, 1, [1])
    with pytest.raises(OverloadedError):
        talk(urls, "embed", "x", client={**settings, "retry": RetryPolicy(spare=0, share=0)})


def test_a_model_that_can_not_do_its_work_is_no_reason_to_ask_everybody(
    urls: list[str], triton: ScriptedTriton, other: ScriptedTriton, once: Once
) -> None:
    """Behind all servers there may be one language model: asking each would multiply its load."""
    triton.script = other.script = [says(error("unavailable: the engine went away"), final())]
    with pytest.raises(UnavailableError, match="the engine went away"):
        once(urls, "ask", "Who?")
    assert len(triton.requests) + len(other.requests) == 1


def test_servers_that_are_all_gone_are_told_by_name(talk: Talk) -> None:
    urls = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
        talk(urls, "embed", "x", client={"retry": RetryPolicy(attempts=2)})
    assert len(talk.pauses_s) == 1


def test_an_answer_is_stopped_where_it_runs(urls: list[str], triton: ScriptedTriton, other: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    other.script = [says(error("unavailable: this one must not be asked"), final())]
    with RagClient(urls, _chance=Chance(draw=lambda: 0.0)) as client, client.stream("Who?") as stream:
        next(stream)
    assert triton.ends.get(timeout=10) == "read out"
    assert other.requests == []


def test_cancel_reaches_the_server_that_has_the_generation(
    urls: list[str], triton: ScriptedTriton, other: ScriptedTriton, talk: Talk
) -> None:
    nobody = says(error("not_found: no generation runs under the id 'me'"), final())
    triton.script = [nobody]
    other.script = [says(final(delta("", finish="cancelled", first=True)))]
    talk(urls, "cancel", "me")
    assert (len(triton.requests), len(other.requests)) == (1, 1)
    other.script = [nobody]
    with pytest.raises(NotFoundError):
        talk(urls, "cancel", "me")
    other.script = [says(error("internal: broken"), final())]
    with pytest.raises(InternalError):
        talk(urls, "cancel", "me")


def test_health_is_what_one_of_them_says(
    urls: list[str], triton: ScriptedTriton, other: ScriptedTriton, talk: Talk
) -> None:
    gone = f"127.0.0.1:{free_port()}"
    assert not talk([gone], "health").live
    triton.ready, triton.ready_models = False, {"embedder"}
    other.ready_models = {"retriever"}
    health = talk([gone, *urls], "health")
    assert (health.live, health.ready) == (True, True)
    assert {model for model, ready in health.models.items() if ready} == {"embedder", "retriever"}


@pytest.mark.parametrize("bad", [[], ["127.0.0.1:1", ""], ["http://127.0.0.1:1"], [None], {"127.0.0.1:1"}, b"host:1"])
@pytest.mark.parametrize("kind", [RagClient, AsyncRagClient])
def test_what_is_no_list_of_addresses_is_refused(kind: Value, bad: Value) -> None:
    with pytest.raises(BadRequestError, match="host:port"):
        kind(bad)


def test_each_failure_in_a_row_doubles_the_time_up_to_a_limit_and_an_answer_forgets_them() -> None:
    now_s = 0.0
    bad, good = Server("bad"), Server("good")
    servers = Servers([bad, good], lambda: now_s)
    waits_s = []
    for _ in range(7):
        servers.failed(bad)
        servers.failed(bad)  # a second request that finds the same
        waits_s.append(bad.avoided_until_s - now_s)
        assert servers.choose([]) is good
        assert servers.choose([good]) is bad
        now_s = bad.avoided_until_s
    assert waits_s == [0.25, 0.5, 1, 2, 4, 5, 5]
    servers.succeeded(bad)
    servers.failed(bad)
    assert bad.avoided_until_s - now_s == 0.25
    servers.succeeded(bad)  # it had begun before
    assert bad.failures == 1
