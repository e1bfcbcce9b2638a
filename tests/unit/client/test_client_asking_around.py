"""`cancel` and `health` of several servers: one that is silent keeps none of the others waiting, and one that drains says so."""

import socket
import threading
from collections.abc import Iterator

import grpc
import pytest
from client_double import (
    ONCE,
    Context,
    Entry,
    Message,
    ScriptedTriton,
    Talk,
    Value,
    delta,
    error,
    fails,
    final,
    running,
    says,
)

from tritonrag_client import NotFoundError, Timeouts, UnavailableError

UNKNOWN = "Request for unknown model: 'generator' is not found"
ALL_FOR_ONE = Timeouts(connect_s=5, total_s=5)  # connecting to a silent server may take everything
STOPPED = says(final(delta("", finish="cancelled", first=True)))
NOBODY = says(error("not_found: no generation runs under the id 'me'"), final())


class LateTriton(ScriptedTriton):
    """Says that it lives once it `may_speak`."""

    def __init__(self) -> None:
        super().__init__()
        self.may_speak = threading.Event()

    def ServerLive(self, request: Message, context: Context) -> Value:  # noqa: N802 - the service's own signature
        self.may_speak.wait(20)
        return super().ServerLive(request, context)


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        yield f"127.0.0.1:{hole.getsockname()[1]}"


def test_cancel_reaches_the_generation_behind_a_silent_server(
    silent: str, url: str, triton: ScriptedTriton, talk: Talk
) -> None:
    triton.script = [STOPPED]
    talk([silent, url], "cancel", "me", timeouts=ALL_FOR_ONE)
    assert (len(triton.requests), talk.pauses_s) == (1, [])


def test_cancel_does_not_wait_for_a_silent_server_once_the_generation_is_found(
    silent: str, url: str, triton: ScriptedTriton, talk: Talk
) -> None:
    triton.script = [STOPPED]
    talk([url, silent], "cancel", "me", client={"timeouts": Timeouts(connect_s=0.5)})
    assert (len(triton.requests), talk.pauses_s) == (1, [])


def test_a_server_that_is_late_is_told_to_stop_where_no_other_has_the_generation(
    url: str, triton: ScriptedTriton, talk: Talk
) -> None:
    late = LateTriton()

    def nobody(request: Message, context: Context) -> Value:
        late.may_speak.set()
        return NOBODY(request, context)

    triton.script, late.script = [nobody], [STOPPED]
    with running(late) as address:
        talk([address, url], "cancel", "me")
    assert (len(triton.requests), len(late.requests)) == (1, 1)


def test_health_is_told_by_the_server_behind_a_silent_one(silent: str, url: str, talk: Talk) -> None:
    health = talk([silent, url], "health", timeouts=ALL_FOR_ONE)
    assert (health.live, health.ready, set(health.models.values())) == (True, True, {True})


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("entry", [says(error(UNKNOWN), final()), fails(grpc.StatusCode.NOT_FOUND, UNKNOWN)])
def test_a_stop_that_a_draining_server_does_not_take_is_not_taken_for_a_generation_that_is_over(
    url: str, triton: ScriptedTriton, talk: Talk, entry: Entry, ready: bool
) -> None:
    triton.script, triton.ready = [entry], ready
    with pytest.raises(NotFoundError if ready else UnavailableError):
        talk(url, "cancel", "me", client=ONCE)
