"""Events are lines: JSON for machines, a sentence for people; each is counted."""

import io
import json
from datetime import UTC, datetime

import pytest

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
