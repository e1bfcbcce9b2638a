"""A model's last work ends in its event loop, whatever has become of the loop."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tritonrag_backends.models.loops import run_in


class LoopThread:
    """An event loop in a thread of its own, as Triton's stub has it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def tell_to_stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    def stop(self) -> None:
        self.tell_to_stop()
        self.thread.join()


@pytest.fixture
def running() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.stop()
    made.loop.close()


async def work() -> str:
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.to_thread(lambda: None)
    return "done"


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("it failed")


def test_it_ends_in_a_loop_that_runs(running: LoopThread) -> None:
    assert run_in(running.loop, work(), 30) == "done"


@pytest.mark.parametrize("_again", range(20))
def test_it_ends_in_a_loop_that_was_told_to_stop(running: LoopThread, _again: int) -> None:
    running.tell_to_stop()
    assert run_in(running.loop, work(), 30) == "done"


def test_it_ends_in_a_loop_that_has_stopped(running: LoopThread) -> None:
    running.stop()
    assert run_in(running.loop, work(), 30) == "done"


@pytest.mark.parametrize("stopped", [False, True])
def test_its_error_is_raised(running: LoopThread, stopped: bool) -> None:
    if stopped:
        running.stop()
    with pytest.raises(ValueError, match="it failed"):
        run_in(running.loop, fail(), 30)


@pytest.mark.parametrize("stopped", [False, True])
def test_what_does_not_end_is_given_up(running: LoopThread, stopped: bool) -> None:
    if stopped:
        running.stop()
    with pytest.raises(TimeoutError):
        run_in(running.loop, asyncio.Event().wait(), 0.05)
