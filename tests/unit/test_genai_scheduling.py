"""Who runs next in the worker: first come, first served; cancelled ones leave; one bad job harms nobody."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.genai.scheduling import Scheduler, Token
from tritonrag_backends.generation.genai.wire import Cancel, End, Frames, Job, Ready, Setup, Step, WireError, to_frame


def job(number: int, tokens: int = 2, adapter: str | None = None) -> Job:
    return Job(id=number, tokens=[1], max_tokens=tokens, adapter=adapter)


class FakeLane:
    """A static batch of `places`: takes jobs only while it is empty; a token a run for each."""

    def __init__(self, places: int) -> None:
        self._places, self._left, self._cancelled = places, dict[int, int](), set[int]()
        self._running = False

    @property
    def free(self) -> int:
        return 0 if self._running else self._places - len(self._left)

    @property
    def busy(self) -> bool:
        return bool(self._left)

    def takes(self, job: Job) -> bool:
        return job.adapter is None

    def start(self, job: Job) -> None:
        if job.max_tokens == 0:
            raise ValueError("no tokens")
        self._left[job.id] = job.max_tokens

    def cancel(self, job_id: int) -> bool:
        self._cancelled.add(job_id)
        return job_id in self._left

    def run(self) -> Iterator[Token | End]:
        self._running = True
        for number in list(self._left):
            if number in self._cancelled:
                del self._left[number]
                yield End(number, "cancelled")
                continue
            yield number, 7
            self._left[number] -= 1
            if not self._left[number]:
                del self._left[number]
                yield End(number, "length")
        self._running = bool(self._left)


class FakeSingle:
    def __init__(self, job: Job) -> None:
        self._job, self._left = job, job.max_tokens

    def run(self) -> Iterator[Token | End]:
        self._left -= 1
        yield self._job.id, 9
        if not self._left:
            yield End(self._job.id, "length")


def scheduler(lanes: int = 1, places: int = 2) -> Scheduler:
    return Scheduler([FakeLane(places) for _ in range(lanes)], FakeSingle, max_singles=1)


def run(one: Scheduler, limit: int = 1000) -> list[Step]:
    steps = []
    while one.busy:
        steps.append(one.step())
        assert len(steps) < limit
    return steps


def test_jobs_start_in_the_order_in_which_they_came() -> None:
    one = scheduler(places=2)
    for number in range(5):
        one.submit(job(number))
    steps = run(one)
    assert [number for step in steps for number in step.started] == [0, 1, 2, 3, 4]
    assert {end.id: end.reason for step in steps for end in step.ends} == dict.fromkeys(range(5), "length")


def test_an_idle_lane_takes_what_waits_while_another_runs() -> None:
    one = scheduler(lanes=2, places=1)
    one.submit(job(1, tokens=50))
    one.step()
    one.submit(job(2))
    assert one.step().started == [2]


def test_a_cancelled_job_leaves_the_queue_or_the_lane_with_one_end() -> None:
    one = scheduler(places=1)
    one.submit(job(1, tokens=50))
    one.submit(job(2))
    one.step()
    one.cancel(2)
    one.cancel(1)
    steps = run(one)
    assert sorted((end.id, end.reason) for step in steps for end in step.ends) == [(1, "cancelled"), (2, "cancelled")]


def test_adapters_run_alone_one_at_a_time_beside_the_lanes() -> None:
    one = scheduler(places=1)
    for number in (1, 2):
        one.submit(job(number, tokens=3, adapter="polite"))
    one.submit(job(3, tokens=3))
    first = one.step()
    assert sorted(first.started) == [1, 3]
    steps = [first, *run(one)]
    assert {end.id for step in steps for end in step.ends} == {1, 2, 3}


def test_a_job_that_is_refused_ends_as_a_bad_request_and_the_next_runs() -> None:
    one = scheduler(places=1)
    one.submit(job(1, tokens=0))
    one.submit(job(2))
    ends = [end for step in run(one) for end in step.ends]
    assert [(end.id, end.code) for end in ends] == [(1, "bad_request"), (2, "")]


def test_cancelling_what_is_over_is_nobodys_concern() -> None:
    one = scheduler()
    one.cancel(99)
    assert not one.busy


@given(
    actions=st.lists(st.tuples(st.sampled_from(["submit", "alone", "cancel", "step"]), st.integers(0, 20)), max_size=60)
)
def test_whatever_happens_every_job_ends_once(actions: list[tuple[str, int]]) -> None:
    one, submitted, ends = scheduler(lanes=2, places=2), list[int](), list[End]()
    for action, number in actions:
        match action:
            case "submit" | "alone":
                submitted.append(len(submitted))
                one.submit(job(submitted[-1], tokens=1 + number, adapter="a" if action == "alone" else None))
            case "cancel":
                one.cancel(number)
            case _:
                ends += one.step().ends
    ends += [end for step in run(one) for end in step.ends]
    assert sorted(end.id for end in ends) == submitted


MESSAGES = [
    Setup(model="/m", execution="cpu", threads=2, batch=4, lanes=2),
    Job(id=1, tokens=[1, 2], max_tokens=3, temperature=0.5, seed=4, adapter="polite"),
    Cancel(id=1),
    Ready(slots=8, adapters=["polite"]),
    Step(started=[1], tokens=[(1, [5, 6])], ends=[End(1, "error", "internal", "é")]),
]


@given(sizes=st.lists(st.integers(1, 50), max_size=30))
def test_messages_come_out_as_they_went_in_however_the_bytes_fall(sizes: list[int]) -> None:
    data, frames, heard = b"".join(map(to_frame, MESSAGES)), Frames(), []
    for size in sizes:
        heard += frames.feed(data[:size])
        data = data[size:]
    assert [*heard, *frames.feed(data)] == MESSAGES


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\x02\0\0\0{}",
        b"\x03\0\0\0abc",
        b'\x10\0\0\0{"kind":"Other"}',
        b'\x0f\0\0\0{"kind":"Ready"}',
        b'\x33\0\0\0{"kind":"Step","started":[],"tokens":[1],"ends":[]}',
        b'\x35\0\0\0{"kind":"Step","started":[],"tokens":[],"ends":[[1]]}',
    ],
)
def test_bytes_that_are_no_message_are_told_apart(data: bytes) -> None:
    with pytest.raises(WireError):
        Frames().feed(data)
