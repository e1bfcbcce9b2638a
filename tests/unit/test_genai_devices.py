"""Each instance's language model sees the GPU that it was given, and no other; the generator itself sees what it saw before."""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import wait_until

from tritonrag_backends.generation.genai.devices import worker_environment
from tritonrag_backends.generation.genai.engine import open_genai
from tritonrag_backends.generation.genai.process import STARTER, WorkerProcess
from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_backends.generation.genai.supervision import Supervisor
from tritonrag_backends.generation.genai.wire import Job
from tritonrag_client.errors import BadRequestError, RagError, UnavailableError

VISIBLE = "CUDA_VISIBLE_DEVICES"


@given(st.lists(st.from_regex(r"\A(GPU-)?[0-9a-f]{1,9}\Z"), min_size=1, max_size=8, unique=True))
def test_each_instance_has_a_gpu_of_its_own(names: list[str]) -> None:
    settings = GenaiSettings(execution="cuda", devices=" ; ".join(names))
    assert [worker_environment(settings, instance)[VISIBLE] for instance in range(len(names))] == names
    with pytest.raises(BadRequestError, match=f"none for generator instance {len(names)}"):
        worker_environment(settings, len(names))


@pytest.mark.parametrize("instance", [0, 1])
def test_without_devices_all_share_what_there_is(instance: int) -> None:
    assert worker_environment(GenaiSettings(execution="cuda"), instance) == {}
    assert worker_environment(GenaiSettings(execution="cuda", devices=" "), instance) == {}


@pytest.mark.parametrize(
    ("execution", "devices", "said"),
    [
        ("cuda", "0;0", "name each GPU once"),
        ("cuda", "0;", "name each GPU once"),
        ("cuda", "0,1", "0;1"),
        ("cpu", "0", "TRITONRAG_GENAI_EXECUTION is 'cpu'"),
    ],
)
def test_what_can_not_be_right_is_refused_before_anything_is_started(
    tmp_path: Path, execution: str, devices: str, said: str
) -> None:
    settings = GenaiSettings.model_validate({"model": tmp_path / "none", "execution": execution, "devices": devices})
    with pytest.raises(BadRequestError, match=said) as caught:
        open_genai(settings)
    assert "TRITONRAG_GENAI_DEVICES" in caught.value.message


def visible(worker: WorkerProcess) -> str | None:
    process = psutil.Process(worker.process.pid)
    assert wait_until(lambda: bool(process.environ())), (
        "it has no environment"
    )  # for a moment after its start it has none
    return process.environ().get(VISIBLE)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What each worker that is started sees, in turn."""
    seen: list[str | None] = []
    start = WorkerProcess.start

    def noted(settings: GenaiSettings, environment: Mapping[str, str]) -> WorkerProcess:
        worker = start(settings, environment)
        seen.append(visible(worker))
        return worker

    monkeypatch.setattr(WorkerProcess, "start", noted)
    return seen


def test_only_the_worker_sees_less(tiny_llm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0,1,2")
    settings = GenaiSettings(model=tiny_llm_dir, execution="cuda", devices="1;2")
    worker = STARTER.submit(WorkerProcess.start, settings, worker_environment(settings, 1)).result()
    try:
        assert visible(worker) == "2"
        assert os.environ[VISIBLE] == "0,1,2"
    finally:
        worker.stop()


def test_the_engine_gives_each_instance_its_own(tiny_llm_dir: Path, started: list[str | None]) -> None:
    settings = GenaiSettings(model=tiny_llm_dir, execution="cuda", devices="GPU-a;GPU-b")
    for instance in (0, 1):
        with pytest.raises(RagError):  # no machine has GPUs of such names
            open_genai(settings, instance=instance)
    assert started == ["GPU-a", "GPU-b"]


async def test_a_worker_that_is_started_again_sees_the_same(tiny_llm_dir: Path, started: list[str | None]) -> None:
    settings, environment = GenaiSettings(model=tiny_llm_dir, threads=1), {VISIBLE: "7"}
    worker = STARTER.submit(WorkerProcess.start, settings, environment).result()
    ready = STARTER.submit(worker.wait_ready, settings.start_timeout_s).result()
    assert ready.slots > 0
    supervisor = Supervisor(settings, worker, environment)
    generation = await supervisor.submit(Job(id=1, tokens=[1], max_tokens=1000))
    os.kill(worker.process.pid, signal.SIGKILL)
    while (await generation.news())[1] is None:
        pass
    await written_again(supervisor)
    await supervisor.close()
    assert started == ["7", "7"]


async def written_again(supervisor: Supervisor) -> None:
    """Wait until a worker that was started again has written something."""
    async with asyncio.timeout(60):
        while True:
            try:
                generation = await supervisor.submit(Job(id=2, tokens=[1], max_tokens=5))
            except UnavailableError:
                await asyncio.sleep(0.02)
                continue
            while (await generation.news())[1] is None:
                pass
            return
