"""`stop` ends the generations it means and no others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.running import RunningGenerations, stop_key
from tritonrag_client.errors import BadRequestError

TENANTS = st.one_of(st.none(), st.text(max_size=9))
IDS = st.text(min_size=1, max_size=9)


async def test_stop_reaches_every_generation_under_the_id() -> None:
    running = RunningGenerations()
    with running.running("a", None) as first, running.running("a", None) as second, running.running("b", None) as other:
        assert running.stop(stop_key("a", None))
        assert (first.stopped.is_set(), second.stopped.is_set(), other.stopped.is_set()) == (True, True, False)


async def test_a_tenant_can_not_stop_another_tenants_generation() -> None:
    running = RunningGenerations()
    with running.running("a", "blue") as generation:
        for tenant in (None, "red"):
            assert not running.stop(stop_key("a", tenant))
        assert not generation.stopped.is_set()


@given(IDS, TENANTS, IDS, TENANTS)
def test_only_the_same_id_of_the_same_tenant_is_found(
    one: str, tenant: str | None, other: str, other_tenant: str | None
) -> None:
    running = RunningGenerations()
    with running.running(one, tenant):
        assert running.stop(stop_key(other, other_tenant)) == ((one, tenant) == (other, other_tenant))


async def test_an_ended_generation_leaves_nothing_behind() -> None:
    running = RunningGenerations()

    def fail() -> None:
        with running.running("a", None):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert len(running) == 0
    assert not running.stop(stop_key("a", None))


def test_stop_without_an_id_is_refused() -> None:
    with pytest.raises(BadRequestError, match="request id"):
        stop_key("", None)


async def test_generations_without_an_id_run_side_by_side() -> None:
    running = RunningGenerations()
    with running.running("", None), running.running("", None):
        assert len(running) == 2
