"""The index is on the GPUs before the language model takes their memory; who is missing is named; nothing waits without reason."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_backends.models.instances import instance_name
from tritonrag_backends.models.turn import expect_turns, taking_memory, wait_for_turn
from tritonrag_backends.run_dir import RUN_DIR
from tritonrag_backends.settings import GeneratorSettings, Settings
from tritonrag_client.errors import UnavailableError

TAKES_GPU_MEMORY = [
    Settings(generator=GeneratorSettings(engine="tensorrt_llm")),
    Settings(generator=GeneratorSettings(engine="onnxruntime_genai"), genai=GenaiSettings(execution="cuda")),
]
TAKES_NONE = [
    Settings(),
    Settings(generator=GeneratorSettings(engine="openai")),
    Settings(generator=GeneratorSettings(engine="onnxruntime_genai")),
    Settings(genai=GenaiSettings(execution="cuda")),
]
LONG_S = 60.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(RUN_DIR, str(tmp_path))
    return tmp_path


class LookCounter:
    """Counts how often a waiting generator has looked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._looked = threading.Semaphore(0)
        real = time.sleep
        monkeypatch.setattr(time, "sleep", lambda pause_s: (self._looked.release(), real(min(pause_s, 0.001))))

    def wait(self, looks: int) -> None:
        for _ in range(looks):
            assert self._looked.acquire(timeout=LONG_S)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> LookCounter:
    return LookCounter(monkeypatch)


@pytest.fixture
def waiting(folder: Path) -> Callable[[Settings], Future[None]]:  # noqa: ARG001 - the folder is set
    pool = ThreadPoolExecutor(1)
    return lambda settings: pool.submit(wait_for_turn, settings)


def place(instance: str) -> None:
    with taking_memory("retriever", instance):
        pass


@pytest.mark.parametrize("settings", TAKES_GPU_MEMORY)
def test_an_engine_that_takes_gpu_memory_waits_for_the_last_retriever(
    folder: Path, waiting: Callable[[Settings], Future[None]], looks: LookCounter, settings: Settings
) -> None:
    expect_turns(folder, {"retriever": 2}, wait_s=LONG_S)
    loaded = waiting(settings)
    looks.wait(2)
    place("retriever_0_gpu0")
    looks.wait(2)
    assert not loaded.done()
    place("retriever_0_gpu1")
    assert loaded.result(LONG_S) is None


@pytest.mark.parametrize("settings", TAKES_NONE)
def test_an_engine_that_takes_none_waits_for_nobody(folder: Path, settings: Settings) -> None:
    expect_turns(folder, {"retriever": 1}, wait_s=LONG_S)
    wait_for_turn(settings)


@pytest.mark.parametrize("settings", TAKES_GPU_MEMORY)
def test_where_retrievers_search_on_cpus_nobody_waits(folder: Path, settings: Settings) -> None:
    wait_for_turn(settings)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("settings", TAKES_GPU_MEMORY)
def test_in_a_triton_that_we_did_not_start_nobody_waits(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.delenv(RUN_DIR, raising=False)
    place("retriever_0")
    wait_for_turn(settings)


def test_a_retriever_that_fails_ends_the_waiting_and_is_named(
    folder: Path, waiting: Callable[[Settings], Future[None]], looks: LookCounter
) -> None:
    expect_turns(folder, {"retriever": 2}, wait_s=LONG_S)
    loaded = waiting(TAKES_GPU_MEMORY[0])
    looks.wait(1)
    with pytest.raises(ValueError, match="no such index"), taking_memory("retriever", "retriever_0_gpu1"):
        raise ValueError("no such index")
    with pytest.raises(UnavailableError, match="retriever_0_gpu1 failed to load"):
        loaded.result(LONG_S)


@given(expected=st.integers(1, 6), placed=st.integers(0, 5))
def test_who_is_not_ready_in_time_is_counted_and_who_is_is_named(
    tmp_path_factory: pytest.TempPathFactory, expected: int, placed: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    expect_turns(folder, {"retriever": expected}, wait_s=0)
    names = [f"retriever_0_{number}" for number in range(placed)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN_DIR, str(folder))
        for name in names:
            place(name)
        if placed >= expected:
            wait_for_turn(TAKES_GPU_MEMORY[0])
            return
        with pytest.raises(UnavailableError) as caught:
            wait_for_turn(TAKES_GPU_MEMORY[0])
    assert f"{expected - placed} of {expected} instances of retriever" in caught.value.message
    assert all(name in caught.value.message for name in names)


def _place_when_told(told: "multiprocessing.synchronize.Event", instance: str) -> None:
    with taking_memory("retriever", instance):
        assert told.wait(LONG_S)


def test_retrievers_in_processes_of_their_own_are_waited_for(
    folder: Path, waiting: Callable[[Settings], Future[None]], looks: LookCounter
) -> None:
    context = multiprocessing.get_context("spawn")
    told = context.Event()
    processes = [context.Process(target=_place_when_told, args=(told, f"retriever_0_gpu{gpu}")) for gpu in range(3)]
    expect_turns(folder, {"retriever": 3}, wait_s=LONG_S)
    for process in processes:
        process.start()
    loaded = waiting(TAKES_GPU_MEMORY[1])
    looks.wait(2)
    assert not loaded.done()
    told.set()
    assert loaded.result(LONG_S) is None
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_the_encoder_is_waited_for_too_and_told_apart(
    folder: Path, waiting: Callable[[Settings], Future[None]], looks: LookCounter
) -> None:
    expect_turns(folder, {"retriever": 1, "encoder": 1}, wait_s=LONG_S)
    loaded = waiting(TAKES_GPU_MEMORY[0])
    place("retriever_0_gpu0")
    place("retriever_0_gpu1")  # one more than expected is not an encoder
    looks.wait(2)
    assert not loaded.done()
    with taking_memory("encoder", "encoder_0_gpu0"):
        pass
    assert loaded.result(LONG_S) is None


def test_instances_on_several_gpus_that_triton_names_alike_have_names_of_their_own() -> None:
    def args(kind: str, device: str) -> dict[str, str]:
        return {"model_instance_name": "retriever_0", "model_instance_kind": kind, "model_instance_device_id": device}

    assert [instance_name(args("GPU", gpu)) for gpu in "01"] == ["retriever_0_gpu0", "retriever_0_gpu1"]
    assert instance_name(args("CPU", "0")) == instance_name(args("MODEL", "0")) == "retriever_0"
