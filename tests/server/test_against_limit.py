"""The in-process limit does the server's work, and the comparison with it measures both sides."""

import json
import os
from pathlib import Path

import psutil
import pytest

from tests.server.wire import Wire, request, strings
from tritonrag_backends.settings import Settings
from tritonrag_client.errors import BadRequestError, InternalError
from tritonrag_perf.against_limit import measure
from tritonrag_perf.against_limit_report import Against, render, write_against
from tritonrag_perf.corpus import questions_of_index
from tritonrag_perf.limit import LimitRate, LimitWorkers
from tritonrag_perf.limit_stages import open_stages
from tritonrag_perf.limit_worker import Done
from tritonrag_perf.load import Load
from tritonrag_perf.machine import Machine

ALONE, TOGETHER = Load(model="retrieve", concurrency=1), Load(model="retrieve", concurrency=2, batch=4)


def test_the_limit_finds_what_the_server_finds(settings: Settings, wire: Wire) -> None:
    stages = open_stages(settings.to_environment())
    texts = list(questions_of_index(settings.index, count=8, seed=1).texts)
    found = stages.search(texts, stages.embed(texts))
    for text, passages in zip(texts, found, strict=True):
        served = wire.unary(request("retrieve", {"text_input": text}))
        assert isinstance(served, dict)
        assert strings(served["passages"]) == passages


def test_every_kind_of_work_is_counted_by_the_question_and_nobody_stays_behind(settings: Settings) -> None:
    questions = questions_of_index(settings.index, count=8, seed=1).texts
    with LimitWorkers(settings, questions, processes=2) as workers:
        for work in ("embed", "search", "retrieve"):
            rate = workers.measure(work, batch=4, seconds=0.2)
            assert rate.questions_per_s > 0
            assert 0 < rate.cpu_ms_a_question < 1e3 * 2 / rate.questions_per_s * 2
        workers.measure("retrieve", batch=1, seconds=0.1, processes=1)
    assert not [
        child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
    ]


def test_rates_of_processes_add_up() -> None:
    done = [
        Done(questions=100, seconds=2.0, cpu_s=1.0, batch_ms=(10.0, 30.0)),
        Done(questions=300, seconds=2.0, cpu_s=3.0, batch_ms=(20.0,)),
    ]
    assert LimitRate.of(done) == LimitRate(questions_per_s=200.0, p50_ms=20.0, cpu_ms_a_question=10.0)


def test_a_limit_of_nothing_is_refused_and_a_process_that_can_not_start_is_told(settings: Settings) -> None:
    with pytest.raises(BadRequestError, match="0 processes"):
        LimitWorkers(settings, ["why?"], processes=0)
    with pytest.raises(InternalError, match="in-process limit"):
        LimitWorkers(settings.model_copy(update={"index": Path(os.devnull)}), ["why?"], processes=1)


def test_both_sides_are_measured_in_every_round_and_written_down(settings: Settings, tmp_path: Path) -> None:
    questions = questions_of_index(settings.index, count=20, seed=0)
    samples = measure(settings, questions, [ALONE, TOGETHER], rounds=2, seconds=0.3)
    assert [sample.load for sample in samples] == [TOGETHER, ALONE, ALONE, TOGETHER]
    for sample in samples:
        assert min(sample.served_per_s, sample.limit_per_s, sample.server_cpu_ms, sample.limit_cpu_ms) > 0
        assert sample.ratio == sample.served_per_s / sample.limit_per_s
    data, page = write_against(
        Against(machine=Machine.this(), questions=str(questions), samples=tuple(samples)), tmp_path, "against"
    )
    assert len(json.loads(data.read_bytes())["samples"]) == 4
    assert "| retrieve at 2 clients, 4 questions a request |" in page.read_text()
    assert "ms longer than in-process" in page.read_text()


def test_without_a_single_client_nothing_is_said_of_one(settings: Settings) -> None:
    questions = questions_of_index(settings.index, count=20, seed=0)
    samples = measure(settings, questions, [TOGETHER], rounds=1, seconds=0.3)
    assert "longer" not in render(Against(machine=Machine.this(), questions="q", samples=tuple(samples)))
