"""Events are lines: JSON for machines, a sentence for people; each is counted, and none holds up or ends a server."""

import io
import json
import os
import re
import select
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from tests.waiting import wait_until

from tritonrag.supervising.events import Events, wants_json
from tritonrag.supervising.metrics import SupervisorMetrics

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_event_is_an_object_on_a_line() -> None:
    stream = io.StringIO()
    events = Events(as_json=True, stream=stream, now=lambda: NOW)
    events.tell("stub_died", "retrieve", "its process 7\ndied", pid=7)
    assert json.loads(stream.getvalue()) == {
        "time": "2026-01-02T03:04:05.678+00:00",
        "event": "stub_died",
        "model": "retrieve",
        "reason": "its process 7 died",
        "pid": 7,
    }
    assert stream.getvalue().count("\n") == 1


def test_for_people_it_is_a_sentence() -> None:
    stream = Terminal()
    Events(as_json=False, stream=stream, now=lambda: NOW).tell("stub_died", "retrieve", "its process 7 died")
    assert stream.getvalue() == "2026-01-02T03:04:05.678+00:00 retrieve: its process 7 died\n"


def test_a_reason_of_a_page_is_cut() -> None:
    stream = io.StringIO()
    Events(as_json=True, stream=stream).tell("start_failed", "triton", "word " * 1000)
    assert len(stream.getvalue()) < 600


@pytest.mark.parametrize(
    ("asked", "stream", "wanted"),
    [(False, Terminal(), False), (True, Terminal(), True), (False, io.StringIO(), True)],
)
def test_json_is_for_who_asks_and_where_no_person_reads(asked: bool, stream: io.StringIO, wanted: bool) -> None:
    assert wants_json(asked=asked, stream=stream) is wanted


def test_every_event_is_counted_and_what_is_measured_is_exposed() -> None:
    metrics = SupervisorMetrics()
    events = Events(as_json=True, stream=io.StringIO(), count=metrics.event)
    events.tell("stub_died", "retrieve", "died")
    events.tell("stub_died", "retrieve", "died")
    metrics.canary("embedder", 0.004)
    metrics.ready(is_ready=True)
    metrics.restarted()
    metrics.repaired("retrieve")
    lines = metrics.exposition().decode().splitlines()
    assert 'tritonrag_supervisor_events_total{event="stub_died",model="retrieve"} 2.0' in lines
    assert 'tritonrag_supervisor_canary_seconds_count{model="embedder"} 1.0' in lines
    assert "tritonrag_supervisor_ready 1.0" in lines
    assert "tritonrag_supervisor_restarts_total 1.0" in lines
    assert 'tritonrag_supervisor_repairs_total{model="retrieve"} 1.0' in lines


def not_written(metrics: SupervisorMetrics) -> float:
    found = re.search(rb'events_total\{event="not_written",model="triton"\} (\S+)', metrics.exposition())
    return float(found[1]) if found else 0.0


def read_all(descriptor: int) -> bytes:
    """What stands in a pipe now."""
    parts = []
    while select.select([descriptor], [], [], 0)[0]:
        parts.append(os.read(descriptor, 2**16))
    return b"".join(parts)


def broken_pipe() -> int:
    readable, writable = os.pipe()
    os.close(readable)
    return writable


def full_pipe() -> tuple[int, int]:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writable, b"\n")
    os.set_blocking(writable, True)
    return readable, writable


@pytest.mark.parametrize("opened", [lambda: os.open("/dev/full", os.O_WRONLY), broken_pipe], ids=["disk", "pipe"])
def test_what_can_not_be_written_is_counted_and_no_error(
    opened: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = SupervisorMetrics()
    with os.fdopen(opened(), "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        events = Events(as_json=True, count=metrics.event)
        events.tell("stub_died", "retrieve", "died")
        events.tell("draining", "triton", "finishing what has begun")
        assert wait_until(lambda: not_written(metrics) == 2)


def test_a_reader_that_does_not_read_holds_up_nobody_and_gets_what_waited_once_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tritonrag.supervising.events._MOST_WAITING", 2)
    metrics = SupervisorMetrics()
    readable, writable = full_pipe()
    with os.fdopen(readable), os.fdopen(writable, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        events = Events(as_json=True, count=metrics.event)
        for number in range(4):
            events.tell("swept", "triton", f"number {number}")
        assert not_written(metrics) == 2
        seen = bytearray()

        def came(text: bytes, times: int) -> bool:
            seen.extend(read_all(readable))
            return seen.count(text) == times

        assert wait_until(lambda: came(b"number", 2))
        events.tell("swept", "triton", "the last")
        assert wait_until(lambda: came(b"the last", 1))
        assert not_written(metrics) == 2
