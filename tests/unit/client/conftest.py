"""A scripted server for each test, and both clients to talk to it."""

from collections.abc import Iterator

import pytest
from client_double import ScriptedTriton, Talk, running


@pytest.fixture
def triton() -> ScriptedTriton:
    return ScriptedTriton()


@pytest.fixture
def url(triton: ScriptedTriton) -> Iterator[str]:
    with running(triton) as address:
        yield address


@pytest.fixture(params=["threads", "asyncio"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(request.param)
