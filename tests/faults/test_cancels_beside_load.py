"""Clients that give up or never read, beside others at a steady rate: none of the others' requests fails, is late or wrong."""

import asyncio
import time

import pytest

from tests.faults.editions import Edition, Stay, faults
from tests.faults.slow_server import running, words
from tests.faults.steady import Steady
from tests.faults.test_cancels import CANCELS, LENGTH, Crowd
from tests.faults.test_stalled_readers import READERS, Stalled
from tests.server.wire import Wire
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index import Index
from tritonrag_backends.settings import Settings


@pytest.fixture(scope="module")
def right(settings: Settings) -> list[Stay]:
    """The one version that there is, and what the slow engine writes."""
    index, encoder = Index.open(settings.index, fingerprint=None), Encoder.open(settings.embedder.model)
    return [Stay(edition=Edition(index, encoder, written=(words(LENGTH), "length")))]


def goes_on(steady: Steady) -> bool:
    since_s = time.monotonic()
    return wait_until(lambda: steady.ended_since(since_s))


async def give_up(url: str) -> int:
    crowd = Crowd(url, seed=3)
    try:
        await crowd.give_up(CANCELS)
    finally:
        await crowd.close()
    return sum(crowd.given_up.values())


def test_a_thousand_cancels_disturb_nobody_else(slow: RunningServer, slow_wire: Wire, right: list[Stay]) -> None:
    with Steady([slow.grpc_url], max_tokens=LENGTH) as steady:
        assert goes_on(steady)
        began_s = time.monotonic()
        assert asyncio.run(give_up(slow.grpc_url)) == CANCELS
        ended_s = time.monotonic()
        assert goes_on(steady)
    assert wait_until(lambda: running(slow_wire) == 0)
    assert [one for one in steady.asked if began_s < one.began_s and one.ended_s < ended_s]
    assert faults(steady.asked, right) == []


def test_a_hundred_stalled_readers_disturb_nobody_else(slow: RunningServer, slow_wire: Wire, right: list[Stay]) -> None:
    with Steady([slow.grpc_url], max_tokens=LENGTH) as steady:
        assert goes_on(steady)
        with Stalled(slow.grpc_url, "generator"):
            assert wait_until(lambda: running(slow_wire) >= READERS)
            assert goes_on(steady)
            assert wait_until(lambda: running(slow_wire) < READERS, deadline_s=120)
            assert goes_on(steady)
        assert goes_on(steady)
    assert wait_until(lambda: running(slow_wire) == 0)
    assert faults(steady.asked, right) == []
