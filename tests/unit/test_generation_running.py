"""`stop` ends the generations it means and no others."""

import pytest

from tritonrag_backends.generation.running import RunningGenerations
from tritonrag_client.errors import BadRequestError, NotFoundError


async def test_stop_reaches_every_generation_under_the_id() -> None:
    running = RunningGenerations()
    with running.running("a", None) as first, running.running("a", None) as second, running.running("b", None) as other:
        running.stop("a", None)
        assert (first.stopped.is_set(), second.stopped.is_set(), other.stopped.is_set()) == (True, True, False)


async def test_a_tenant_can_not_stop_another_tenants_generation() -> None:
    running = RunningGenerations()
    with running.running("a", "blue") as generation:
        for tenant in (None, "red"):
            with pytest.raises(NotFoundError, match="'a'"):
                running.stop("a", tenant)
        assert not generation.stopped.is_set()


async def test_an_ended_generation_leaves_nothing_behind() -> None:
    running = RunningGenerations()

    def fail() -> None:
        with running.running("a", None):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert len(running) == 0
    with pytest.raises(NotFoundError):
        running.stop("a", None)


async def test_stop_without_an_id_is_refused() -> None:
    with pytest.raises(BadRequestError, match="request id"):
        RunningGenerations().stop("", None)
