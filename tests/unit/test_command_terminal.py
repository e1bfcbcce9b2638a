"""Progress and results: what a person, a log and a machine see."""

import io
import json
import os
import signal
from pathlib import Path

import pytest

from tritonrag.answers import excerpt, print_stream
from tritonrag.commands.export_embedder import _Report
from tritonrag.log_follower import LogFollower
from tritonrag.stop_signals import StopSignals
from tritonrag.terminal import PlainSteps, RichSteps, open_steps, write_json
from tritonrag_client.contract import Passage, Source
from tritonrag_client.results import AnswerDelta

Capture = pytest.CaptureFixture[str]


def test_a_log_gets_one_line_for_each_step_and_none_for_each_tick(capsys: Capture) -> None:
    with open_steps() as steps:
        steps.step("reading")
        for done in range(1000):
            steps.update(done, 1000)
        steps.step("writing")
        steps.note("careful")
    assert capsys.readouterr() == ("", "reading\nwriting\ncareful\n")


def test_a_log_hears_of_a_step_that_goes_on(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    steps = PlainSteps()
    steps.step("embedding")
    now = 60.0
    steps.update(12_345)
    steps.update(12_346)
    assert capsys.readouterr().err == "embedding\nembedding: 12,345\n"


def test_on_a_terminal_each_step_is_a_bar_that_ends_full() -> None:
    steps = RichSteps()
    steps.step("one")
    steps.update(3, 10)
    steps.step("two")
    assert [(task.description, task.finished) for task in steps.progress.tasks] == [("one", True), ("two", False)]


def test_the_exporters_reports_become_steps(capsys: Capture) -> None:
    report = _Report(PlainSteps())
    for name, fraction in (("reading", 0.0), ("building", 0.1), ("building", 0.3), ("done", 1.0)):
        report(name, fraction)
    assert capsys.readouterr().err == "embedding model: reading\nembedding model: building\n"


def test_json_is_one_line_whatever_stands_in_it(capsys: Capture) -> None:
    write_json({"text": "two\nlines, ü", "path": Path("x")})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"text": "two\nlines, ü", "path": "x"}


def test_an_answer_is_printed_with_its_sources_and_what_was_given_up(capsys: Capture) -> None:
    passage = Passage(text="text", title="json", uri="pydoc:json", start=3, end=7)
    source = Source(n=1, passage_id=5, score=0.5, passage=passage)
    deltas = [
        AnswerDelta(text="Use ", sources=(source,), finish_reason="", degraded="", request_id="a"),
        AnswerDelta(text="json.loads [1].", sources=(), finish_reason="stop", degraded="cache down", request_id="a"),
    ]
    print_stream(deltas)
    out, err = capsys.readouterr()
    assert out == "Use json.loads [1].\n  [1] json  pydoc:json:3-7\n"
    assert err == "degraded: cache down\n"


def test_a_long_passage_is_cut_at_a_word_and_stands_on_one_line() -> None:
    assert excerpt("a\n  b") == "a b"
    assert excerpt("word " * 200).endswith("word ...")
    assert len(excerpt("word " * 200)) < 310


def test_following_a_log_gives_its_last_lines_too(tmp_path: Path) -> None:
    log, stream = tmp_path / "log", io.StringIO()
    log.write_text("first\n")
    with LogFollower(log, stream), log.open("a") as more:
        more.write("last\n")
    assert stream.getvalue() == "first\nlast\n"


def test_a_signal_is_counted_and_wakes_who_waits() -> None:
    readable, writable = os.pipe()
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        signals.wait(readable)
        assert signals.received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before
    os.close(readable)
    os.close(writable)


def test_waiting_ends_when_what_is_waited_for_is_there() -> None:
    readable, writable = os.pipe()
    os.write(writable, b"x")
    with StopSignals() as signals:
        signals.wait(readable)
        assert signals.received == []
    os.close(readable)
    os.close(writable)


def test_a_hangup_that_nohup_has_ignored_stays_ignored() -> None:
    readable, writable = os.pipe()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            signals.wait(readable)
            assert signals.received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
        os.close(readable)
        os.close(writable)
