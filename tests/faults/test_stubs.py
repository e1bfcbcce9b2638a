"""A process of a model dies or hangs under load: it is found and mended, and no answer is wrong meanwhile."""

import os
import re
import signal
import time
from collections import Counter

import pytest

from tests.faults.load import Load, References
from tests.faults.serving import Serve
from tests.waiting import wait_until

MODELS = ("embedder", "retriever", "retrieve", "generator")
GONE_S = 60.0
FOUND_S, BACK_S = (
    10.0,
    40.0,
)  # generous: the promises are 2 and 15 s, and `python -m tritonrag_perf.faults` measures them


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("model", MODELS)
def test_a_stub_that_dies_or_hangs_is_replaced_and_no_answer_is_wrong(
    serve: Serve, references: References, model: str, number: signal.Signals
) -> None:
    assert serve.is_ready()
    stubs, before = serve.stubs(model), len(serve.events_of(model))
    with Load(serve.grpc_url, references) as load:
        assert wait_until(lambda: load.answered_since(0.0))
        os.kill(stubs[0].pid, number)
        assert wait_until(lambda: not serve.is_ready(), FOUND_S)
        assert wait_until(serve.is_ready, BACK_S), serve.health()
        back_s = time.monotonic()
        assert wait_until(lambda: load.answered_since(back_s))
    assert load.tally.faults() == []
    assert load.tally.failed(after_s=back_s) == []
    found = "stub_died" if number == signal.SIGKILL else "stub_hung"
    assert serve.events_of(model)[before:][0] == found
    successors = {stub.pid for stub in serve.stubs(model)}
    assert len(successors - {stub.pid for stub in stubs}) == len(stubs)


def test_processes_of_several_models_that_die_at_once_are_replaced_without_a_restart(
    serve: Serve, references: References
) -> None:
    restarts = serve.health()["restarts"]
    with Load(serve.grpc_url, references) as load:
        assert wait_until(lambda: load.answered_since(0.0))
        for model in MODELS:
            os.kill(serve.stubs(model)[0].pid, signal.SIGKILL)
        assert wait_until(lambda: not serve.is_ready(), FOUND_S)
        assert wait_until(serve.is_ready, BACK_S), serve.health()
        back_s = time.monotonic()
        assert wait_until(lambda: load.answered_since(back_s))
    assert load.tally.faults() == []
    assert load.tally.failed(after_s=back_s) == []
    assert serve.health()["restarts"] == restarts


def test_what_was_replaced_is_gone_with_its_shared_memory(serve: Serve) -> None:
    """Triton itself never ends a model that a request failed on after its process died."""
    counts = {"embedder": 2, "retriever": 1, "retrieve": 2, "generator": 1}
    assert wait_until(lambda: {model: len(serve.all_stubs(model)) for model in MODELS} == counts, GONE_S)
    assert wait_until(lambda: len(serve.regions()) == sum(counts.values()))


def test_what_happened_is_counted(serve: Serve) -> None:
    _, metrics = serve.get("/metrics")
    assert "tritonrag_supervisor_ready 1.0" in metrics
    counted = re.findall(
        r'^tritonrag_supervisor_events_total{event="stub_died",model="(\w+)"} (\d+)\.0$', metrics, re.MULTILINE
    )
    assert {model: int(count) for model, count in counted} == Counter(
        one["model"] for one in serve.events() if one["event"] == "stub_died"
    )
    for model in MODELS:
        assert f'tritonrag_supervisor_canary_seconds_count{{model="{model}"}}' in metrics


def test_no_question_stands_in_the_log(serve: Serve) -> None:
    assert "JSON document" not in serve.stderr.read_text()
