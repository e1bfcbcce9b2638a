"""Retries never multiply the load of a server: a client has so many, whatever its requests meet."""

import asyncio
import threading

import pytest
from client_double import BUSY, ScriptedTriton, Talk, Value, embedding, error, final, says
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_client import AsyncRagClient, BadRequestError, OverloadedError, RagClient, RetryPolicy
from tritonrag_client._allowance import RetryAllowance
from tritonrag_client._core import Chance

REQUESTS = 200
MOST_TRIES = 1.2 * REQUESTS
AT_ONCE = RetryPolicy(base_s=1e-6, max_s=1e-6)


def still() -> float:
    return 0.0


@pytest.mark.parametrize(
    "entry", [BUSY, says(error("overloaded: the queue is full"), final())], ids=["unary", "stream"]
)
def test_a_server_that_refuses_everything_gets_a_fifth_more_requests_at_most(
    url: str, triton: ScriptedTriton, entry: Value
) -> None:
    triton.script = [entry]
    with RagClient(url, retry=AT_ONCE, _chance=Chance(clock=still)) as client:
        ask = client.embed if entry is BUSY else client.ask
        for _ in range(REQUESTS):
            with pytest.raises(OverloadedError):
                ask("x")
    assert REQUESTS < len(triton.requests) <= MOST_TRIES


def test_threads_share_one_allowance(url: str, triton: ScriptedTriton) -> None:
    triton.script = [BUSY]
    with RagClient(url, retry=AT_ONCE, _chance=Chance(clock=still)) as client:

        def ask() -> None:
            for _ in range(REQUESTS // 8):
                with pytest.raises(OverloadedError):
                    client.embed("x")

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert REQUESTS < len(triton.requests) <= MOST_TRIES


async def test_tasks_share_one_allowance(url: str, triton: ScriptedTriton) -> None:
    triton.script = [BUSY]
    async with AsyncRagClient(url, retry=AT_ONCE, _chance=Chance(clock=still)) as client:
        results = await asyncio.gather(*(client.embed("x") for _ in range(REQUESTS)), return_exceptions=True)
    assert {type(result) for result in results} == {OverloadedError}
    assert REQUESTS < len(triton.requests) <= MOST_TRIES


def test_without_an_allowance_the_first_error_is_raised_at_once(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [BUSY, embedding]
    with pytest.raises(OverloadedError):
        talk(url, "embed", "x", client={"retry": RetryPolicy(share=0, spare=0)})
    assert (len(triton.requests), talk.pauses_s) == (1, [])


@given(
    share=st.floats(0, 1),
    spare=st.integers(0, 20),
    steps=st.lists(st.one_of(st.just("request"), st.just("retry"), st.floats(0, 5)), max_size=200),
)
def test_retries_keep_to_the_share_the_spare_ones_and_the_time(
    share: float, spare: int, steps: list[str | float]
) -> None:
    now_s, requests, retries = 0.0, 0, 0
    allowance = RetryAllowance(RetryPolicy(share=share, spare=spare), lambda: now_s)
    for step in steps:
        if step == "request":
            allowance.request()
            requests += 1
        elif step == "retry":
            retries += allowance.take()
        else:
            now_s += float(step)
    assert retries <= spare + share * (requests + now_s) + 1e-6


def test_ten_requests_bring_a_retry_and_so_do_ten_seconds() -> None:
    now_s = 0.0
    allowance = RetryAllowance(RetryPolicy(share=0.1, spare=1), lambda: now_s)
    assert (allowance.take(), allowance.take()) == (True, False)
    for _ in range(10):
        allowance.request()
    assert (allowance.take(), allowance.take()) == (True, False)
    now_s = 1000.0
    assert (allowance.take(), allowance.take()) == (True, False)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"share": -0.1}, "share is -0.1"),
        ({"share": 1.1}, "share is 1.1"),
        ({"share": float("nan")}, "share is nan"),
        ({"spare": -1}, "spare is -1"),
        ({"spare": 1.5}, "spare is 1.5"),
    ],
)
def test_a_nonsensical_allowance_is_refused(options: dict[str, Value], culprit: str) -> None:
    with pytest.raises(BadRequestError, match=culprit):
        RetryPolicy(**options)
