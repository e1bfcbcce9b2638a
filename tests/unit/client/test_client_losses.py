"""A request that may have killed what worked on it does not go through all servers, and one that hangs or refuses is left."""

from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest
from client_double import (
    ANSWER,
    ONCE,
    SHORT,
    Entry,
    ScriptedTriton,
    Talk,
    embedding,
    error,
    fails,
    final,
    running,
    says,
)

from tritonrag_client import DeadlineError, RagClient, RetryPolicy, UnavailableError
from tritonrag_client._core import Chance
from tritonrag_client._servers import Server, Servers

SERVERS = 4
LOST = {
    "connection": fails(grpc.StatusCode.UNAVAILABLE, "Socket closed"),
    "process": fails(grpc.StatusCode.INTERNAL, "in ensemble 'retrieve', Stub process 'embedder_0_1' is not healthy."),
}
REFUSED = fails(grpc.StatusCode.UNAVAILABLE, "Server not ready")
STOPPING = "Server is stopping, scheduler for model has stopped accepting new inference requests"


class Fleet:
    """SERVERS servers, the first of which gets the first request. One without an entry answers."""

    def __init__(self, talk: Talk, fleet: list[ScriptedTriton], urls: list[str]) -> None:
        self._talk, self._fleet, self._urls = talk, fleet, urls

    def ask(self, *entries: Entry, retry: RetryPolicy = ONCE["retry"]) -> None:
        for place, triton in enumerate(self._fleet):
            triton.script = [entries[place] if place < len(entries) else embedding]
        self._talk(self._urls, "embed", "x", client={"retry": retry, "_chance": self._talk.chance(draw=0.0)})

    @property
    def sent(self) -> int:
        return sum(len(triton.requests) for triton in self._fleet)

    @property
    def pauses(self) -> int:
        return len(self._talk.pauses_s)


@pytest.fixture
def fleet(talk: Talk) -> Iterator[Fleet]:
    with ExitStack() as stack:
        tritons = [ScriptedTriton() for _ in range(SERVERS)]
        yield Fleet(talk, tritons, [stack.enter_context(running(triton)) for triton in tritons])


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("retry", [RetryPolicy(attempts=1), RetryPolicy(share=0, spare=0)], ids=["never", "spent"])
def test_a_request_that_is_lost_is_sent_to_one_other_server_for_nothing(
    fleet: Fleet, how: str, retry: RetryPolicy
) -> None:
    fleet.ask(LOST[how], retry=retry)
    assert (fleet.sent, fleet.pauses) == (2, 0)
    with pytest.raises(UnavailableError):
        fleet.ask(*[LOST[how]] * SERVERS, retry=retry)
    assert (fleet.sent, fleet.pauses) == (4, 0)


@pytest.mark.parametrize("how", LOST)
def test_a_request_that_is_lost_again_is_sent_anew_as_often_as_the_policy_says(fleet: Fleet, how: str) -> None:
    with pytest.raises(UnavailableError):
        fleet.ask(*[LOST[how]] * SERVERS, retry=RetryPolicy(attempts=3))
    assert (fleet.sent, fleet.pauses) == (4, 2)


def test_servers_that_refuse_a_request_are_left_for_nothing_however_many_they_are(fleet: Fleet) -> None:
    fleet.ask(REFUSED, REFUSED, REFUSED)
    assert (fleet.sent, fleet.pauses) == (4, 0)


@pytest.mark.parametrize("how", LOST)
def test_a_loss_does_not_count_against_servers_that_refuse(fleet: Fleet, how: str) -> None:
    fleet.ask(LOST[how], REFUSED, REFUSED)
    assert (fleet.sent, fleet.pauses) == (4, 0)


@pytest.mark.parametrize(("method", "entry"), [("embed", embedding), ("ask", ANSWER)])
def test_a_server_that_let_a_deadline_pass_is_asked_before_it_gets_a_request_again(
    url: str, triton: ScriptedTriton, method: str, entry: Entry
) -> None:
    other = ScriptedTriton()
    triton.script, other.script = [triton.hang, entry], [entry]
    with running(other) as address, RagClient([url, address], _chance=Chance(draw=lambda: 0.0)) as client:
        ask = getattr(client, method)
        with pytest.raises(DeadlineError):
            ask("x", timeouts=SHORT)
        triton.ready = False
        for _ in range(4):
            ask("x")
    assert (len(triton.requests), len(other.requests)) == (1, 4)


def test_a_server_that_refused_while_it_was_passed_over_is_asked_before_it_gets_a_request_again(
    url: str, triton: ScriptedTriton
) -> None:
    now_s = 0.0
    other = ScriptedTriton()
    triton.script, other.script = [ANSWER], [says(error(STOPPING), final())]
    triton.ready = other.ready = False
    chance = Chance(clock=lambda: now_s, draw=lambda: 0.0)
    with running(other) as address, RagClient([url, address], retry=ONCE["retry"], _chance=chance) as client:
        for _ in range(2):
            with pytest.raises(UnavailableError):
                client.ask("Who?")
        now_s, triton.ready = 10.0, True
        for _ in range(2):
            client.ask("Who?")
    assert (len(triton.requests), len(other.requests)) == (2, 2)


def test_what_is_observed_of_a_server_tells_whether_it_is_asked_before_its_next_request() -> None:
    bad, good = Server("bad"), Server("good")
    servers = Servers([bad, good], lambda: 0.0)
    observations = [
        (servers.reached, True),
        (servers.failed, False),
        (servers.reached, True),  # while it is passed over
        (servers.failed, False),
        (servers.found_ready, True),
        (servers.unanswered, False),
        (servers.only(bad).reached, True),
        (servers.only(bad).failed, False),
    ]
    for observe, connected in observations:
        observe(bad)
        assert bad.connected is connected
