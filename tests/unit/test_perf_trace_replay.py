"""A replay: questions go out when they are due whatever the server does, and what the sender was late counts as latency."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.trace_made import length_of, line, write_trace

from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, OverloadedError
from tritonrag_perf.machine import Machine
from tritonrag_perf.trace.reading import read_trace
from tritonrag_perf.trace.replay_record import Asked, CacheUse, ReplayRecord, cache_use, summarise_replay
from tritonrag_perf.trace.replay_report import markdown_of, write_replay_record
from tritonrag_perf.trace.replaying import Outcome, Replayer, Reply
from tritonrag_perf.trace.requests import Trace
from tritonrag_perf.trace.schedule import Due, Window
from tritonrag_perf.trace.sending import client_of, sender
from tritonrag_perf.trace.texts import PassageMap, TextMaker

MACHINE = Machine(cpu="Some CPU", cores=2, memory_gib=8, system="Linux")


class FakeClock:
    """Time stands still while tasks run, and goes on to the next wake-up when all of them wait."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._turns = 0

    def now(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self._sleepers.append((self.time_s + seconds, event))
        self._let_run()
        await event.wait()

    def _let_run(self, turns: int = 20) -> None:
        if not self._turns:
            asyncio.get_running_loop().call_soon(self._turn)
        self._turns = turns

    def _turn(self) -> None:
        self._turns -= 1
        if self._turns:
            asyncio.get_running_loop().call_soon(self._turn)
        elif self._sleepers:
            wake_s, event = min(self._sleepers, key=lambda sleeper: sleeper[0])
            self._sleepers.remove((wake_s, event))
            self.time_s = max(self.time_s, wake_s)
            event.set()
            self._let_run()


def index_passages(count: int = 40) -> list[Passage]:
    """Each with words of its own."""
    letters = "abcdefghij"
    spelt = ["".join(letters[int(digit)] for digit in f"{number:03d}") for number in range(count)]
    return [
        Passage(text=" ".join(f"{word}{tail}" for tail in "klmnopqrstuvw"), title=word, uri=f"u:{i}", start=0, end=9)
        for i, word in enumerate(spelt)
    ]


def one_each(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    asked = [line(10 * at, at % 4, [at % 3, 7]) for at in range(12)]
    return read_trace(write_trace(tmp_path, asked))


async def replayed(
    trace: Trace, send: Callable[[FakeClock], Callable[..., object]], clock: FakeClock, speed: float = 10
) -> list[Outcome]:
    due = Window(speed=speed, seconds=60).of(trace)
    texts = {request.question.id: f"question {request.question.id}" for request in trace.requests}
    aims = dict.fromkeys(texts, (index_passages()[0],))
    replayer = Replayer(send=send(clock), texts=texts, aims=aims, clock=clock)  # type: ignore[arg-type]
    return await replayer.run(due)


def test_a_window_is_as_fast_and_as_long_as_it_says(trace: Trace) -> None:
    due = Window(speed=20, seconds=3, start_s=30).of(trace)
    assert [(each.at_s, each.request.arrival_s) for each in due] == [
        (0, 30),
        (0.5, 40),
        (1, 50),
        (1.5, 60),
        (2, 70),
        (2.5, 80),
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [({"speed": 0}, "speed is 0"), ({"seconds": -1}, "seconds is -1"), ({"start_s": -2}, "start_s is -2")],
)
def test_a_window_that_cannot_be_is_refused(options: dict[str, float], named: str) -> None:
    with pytest.raises(BadRequestError, match=named):
        Window(**options)


def test_a_window_behind_the_traces_end_is_refused(trace: Trace) -> None:
    with pytest.raises(BadRequestError, match="its last one comes at 110"):
        Window(start_s=1000).of(trace)


async def test_questions_are_sent_when_they_are_due_although_none_is_answered_yet(trace: Trace) -> None:
    clock = FakeClock()

    def slow(clock: FakeClock) -> Callable[..., object]:
        async def send(_question: str, first: Callable[[], None]) -> Reply:
            await clock.sleep(50)
            first()
            await clock.sleep(50)
            return Reply(passages=())

        return send

    outcomes = await replayed(trace, slow, clock)
    assert [outcome.sent_s for outcome in outcomes] == [float(at) for at in range(12)]
    assert {(outcome.first_ms, outcome.latency_ms, outcome.late_ms) for outcome in outcomes} == {(50_000, 100_000, 0)}


async def test_what_the_sender_is_late_is_part_of_the_latency(trace: Trace) -> None:
    clock = FakeClock()

    def blocking(clock: FakeClock) -> Callable[..., object]:
        async def send(_question: str, first: Callable[[], None]) -> Reply:
            first()
            clock.time_s += 2  # nothing else runs meanwhile, and a question is due every second
            return Reply(passages=())

        return send

    outcomes = await replayed(trace, blocking, clock)
    assert {round(outcome.service_ms) for outcome in outcomes} == {2000}
    assert [round(outcome.late_ms) for outcome in outcomes] == [1000 * number for number in range(12)]
    assert [round(outcome.latency_ms) for outcome in outcomes] == [2000 + 1000 * number for number in range(12)]
    record = summed_up(trace, outcomes)
    assert (record.late, record.latest_ms) == (11, pytest.approx(11_000))


async def test_failures_are_counted_by_code_and_are_in_no_latency(trace: Trace) -> None:
    clock = FakeClock()
    seen: Counter[str] = Counter()

    def failing(clock: FakeClock) -> Callable[..., object]:
        async def send(question: str, _first: Callable[[], None]) -> Reply:
            seen[question] += 1
            await clock.sleep(0.25)
            if question == "question 1":
                raise OverloadedError("full")
            right = index_passages()[0 if question == "question 2" else 1]
            return Reply(passages=(right,), degraded=question == "question 3", broken_off=question == "question 0")

        return send

    record = summed_up(trace, await replayed(trace, failing, clock))
    assert record.failures == {"broken_off": 3, "overloaded": 3}
    assert (record.answers, record.degraded, record.found, record.aimed) == (6, 3, 3, 6)
    assert record.latency is not None
    assert record.latency.p50 == record.latency.most == pytest.approx(250)
    assert record.first is None
    assert seen == dict.fromkeys((f"question {number}" for number in range(4)), 3)  # repeats repeat
    assert record.asked.repeats == 8
    assert "3 broken_off, 3 overloaded" in markdown_of(record)


async def test_a_fault_of_our_own_is_not_counted_as_the_servers(trace: Trace) -> None:
    def wrong(_clock: FakeClock) -> Callable[..., object]:
        async def send(_question: str, _first: Callable[[], None]) -> Reply:
            raise KeyError("ours")

        return send

    with pytest.raises(ExceptionGroup):
        await replayed(trace, wrong, FakeClock())


def summed_up(trace: Trace, outcomes: Sequence[Outcome], caches: dict[str, CacheUse] | None = None) -> ReplayRecord:
    window = Window(speed=10, seconds=60)
    due: tuple[Due, ...] = window.of(trace)
    asked = Asked.of(due, window, unequal=1, alike=2, shared_passages=3)
    return summarise_replay(
        outcomes, date="2026-01-01", machine=MACHINE, command="again", model="rag", asked=asked, caches=caches
    )


def test_the_record_says_what_was_not_as_in_the_trace(trace: Trace, tmp_path: Path) -> None:
    outcome = Outcome(due_s=0, sent_s=0.002, first_s=0.1, done_s=0.4)
    record = summed_up(trace, [outcome], {"answers": CacheUse(hits=4, asked=9), "searches": CacheUse(hits=0, asked=0)})
    paths = write_replay_record(record, tmp_path, name="mine")
    assert [path.name for path in paths] == ["mine.json", "mine.md"]
    page = paths[1].read_text()
    for text in (
        "1 texts have another",
        "2 texts are those",
        "3 passages of the trace",
        "4 of 9",
        "| 400.0 |",
        "again",
    ):
        assert text in page
    assert "No metrics" not in page
    assert "No metrics" in markdown_of(summed_up(trace, [outcome]))


def test_cache_hits_are_read_from_what_the_counters_grew_by() -> None:
    grown = {
        'tritonrag_answer_cache_total{outcome="hit"}': 3.0,
        'tritonrag_answer_cache_total{outcome="shared"}': 1.0,
        'tritonrag_answer_cache_total{outcome="miss"}': 5.0,
        'tritonrag_answer_cache_total{outcome="off"}': 7.0,
        'tritonrag_retriever_searches_total{cache="hit",mode="dense",model_instance="a"}': 2.0,
        'tritonrag_retriever_searches_total{cache="miss",mode="dense",model_instance="a"}': 6.0,
        "nv_inference_count": 9.0,
    }
    assert cache_use(grown) == {"answers": CacheUse(hits=4, asked=9), "searches": CacheUse(hits=2, asked=8)}


def test_questions_are_as_long_as_the_traces_of_words_of_their_passages_and_all_different(trace: Trace) -> None:
    passages = index_passages()
    mapped = PassageMap(trace, passages, seed=0)
    texts = TextMaker(passages, one_each, seed=0).make(trace.requests, mapped)
    assert {id_: len(text.split()) for id_, text in texts.by_question.items()} == {
        id_: length_of("user_input", id_) for id_ in range(4)
    }
    assert len(set(texts.by_question.values())) == 4
    assert (texts.unequal, texts.alike) == (0, 0)
    for request in trace.requests[:4]:
        best = mapped.of(request)[0]
        assert set(texts.by_question[request.question.id].split()) <= set(f"{best.title} {best.text}".split())


def test_the_same_seed_gives_the_same_texts_and_another_one_others(trace: Trace) -> None:
    passages = index_passages()
    made = [
        TextMaker(passages, one_each, seed=seed).make(trace.requests, PassageMap(trace, passages, seed=seed))
        for seed in (0, 0, 1)
    ]
    assert made[0] == made[1]
    assert made[0].by_question != made[2].by_question


def test_popular_passages_of_the_trace_have_passages_of_their_own_as_long_as_there_are_any(trace: Trace) -> None:
    enough, few = (PassageMap(trace, index_passages(count), seed=0) for count in (40, 3))
    assert (enough.shared, few.shared) == (0, 1)
    popular = [request.of("passage")[1].id for request in trace.requests]
    assert set(popular) == {7}  # in every request
    assert len({enough.of(request)[1].uri for request in trace.requests}) == 1
    with pytest.raises(BadRequestError, match="no passage"):
        PassageMap(trace, [], seed=0)


def test_questions_that_cannot_be_told_apart_for_want_of_words_are_counted(trace: Trace) -> None:
    passages = [Passage(text="same", title="", uri="u", start=0, end=4)]
    texts = TextMaker(passages, one_each, seed=0).make(trace.requests, PassageMap(trace, passages, seed=0))
    assert texts.alike == 0  # lengths differ
    short = TextMaker(passages, lambda words: [1 for _ in words], seed=0)
    assert short.make(trace.requests, PassageMap(trace, passages, seed=0)).unequal == 3


def test_an_index_without_a_word_to_use_is_refused() -> None:
    with pytest.raises(BadRequestError, match="no word"):
        TextMaker([Passage(text="12 34", title="", uri="u", start=0, end=5)], one_each, seed=0)


async def test_a_search_has_no_longest_answer() -> None:
    async with client_of("127.0.0.1:1", "retrieve", timeout_s=1) as client:
        with pytest.raises(BadRequestError, match="max_tokens"):
            sender(client, "retrieve", num_passages=None, max_tokens=5)
