"""A process that hangs is told from one that has too much to do: the first is replaced, the second is left to its work."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults.load import Load, take_references
from tests.faults.serving import serving
from tests.waiting import wait_until
from tritonrag.triton_command import find_model_repository

FOUND_S, BACK_S = 15.0, 60.0  # generous: the promises are 2 and 15 s
REQUESTS = 3000
RATE_PER_S = 400.0  # many times what one instance in fp32 embeds
TRAFFIC_PER_S = 60.0  # so that some is completed between any two of the counts that the supervisor reads

# Waits for ever, once, without using any time: as a process does whose threads wait for each other.
HANGS_ONCE = """
import pathlib
import threading

from tritonrag_backends.models.{model} import TritonPythonModel as Real

FLAG = pathlib.Path("{flag}")


class TritonPythonModel(Real):
    def execute(self, requests):
        if FLAG.exists():
            FLAG.unlink()
            threading.Event().wait()
        return super().execute(requests)
"""


def make_hanging(folder: Path, model: str) -> tuple[Path, Path]:
    """A repository whose `model` hangs once the file is there, and the file."""
    repository, flag = folder / "repository", folder / "hang"
    shutil.copytree(find_model_repository(None), repository)
    (repository / model / "1" / "model.py").write_text(HANGS_ONCE.format(model=model, flag=flag))
    return repository, flag


@pytest.fixture
def hanging(tmp_path: Path) -> tuple[Path, Path]:
    return make_hanging(tmp_path, "retriever")


def test_a_process_that_waits_for_ever_is_found_by_its_canary_and_replaced(
    tmp_path: Path, index_dir: Path, embedder_dir: Path, hanging: tuple[Path, Path]
) -> None:
    repository, flag = hanging
    arguments = ("--model-repository", str(repository))
    drain = {"TRITONRAG_DRAIN_TIMEOUT_S": "5"}
    with serving(tmp_path, index=index_dir, embedder=embedder_dir, arguments=arguments, **drain) as serve:
        [hung] = serve.stubs("retriever")
        flag.touch()
        assert wait_until(lambda: not serve.is_ready(), FOUND_S)
        assert wait_until(serve.is_ready, BACK_S), serve.health()
        assert serve.events_of("retriever")[-3:] == ["stub_hung", "mending", "mended"]
        assert hung.pid not in {stub.pid for stub in serve.all_stubs("retriever")}
        assert serve.health()["restarts"] == 0
        serve.stop()


def test_one_that_hangs_in_the_midst_of_traffic_is_found_too_whatever_it_had_just_completed(
    tmp_path: Path, index_dir: Path, embedder_dir: Path
) -> None:
    repository, flag = make_hanging(tmp_path, "retrieve")
    arguments = ("--model-repository", str(repository))
    settings = {"TRITONRAG_EMBEDDER_INSTANCES": "1", "TRITONRAG_DRAIN_TIMEOUT_S": "5"}
    with serving(tmp_path, index=index_dir, embedder=embedder_dir, arguments=arguments, **settings) as serve:
        references = take_references(serve.grpc_url, kinds=("search",))
        [hung] = serve.stubs("retrieve")
        with Load(serve.grpc_url, references, rate_per_s=TRAFFIC_PER_S, kinds=("search",)) as load:
            assert wait_until(lambda: load.answered_since(0.0))
            flag.touch()
            assert wait_until(lambda: "stub_hung" in serve.events_of("retrieve"), FOUND_S), serve.health()
            assert wait_until(serve.is_ready, BACK_S), serve.health()
            back_s = time.monotonic()
            assert wait_until(lambda: load.answered_since(back_s))
        assert load.tally.faults() == []
        assert hung.pid not in {stub.pid for stub in serve.all_stubs("retrieve")}
        assert serve.health()["restarts"] == 0
        serve.stop()


def test_an_ensemble_has_the_part_reloaded_that_hangs_and_several_that_died_one_after_the_other(
    tmp_path: Path, index_dir: Path, embedder_dir: Path, hanging: tuple[Path, Path]
) -> None:
    repository, flag = hanging
    arguments = ("--model-repository", str(repository))
    settings = {"TRITONRAG_RETRIEVE_FUSED": "false", "TRITONRAG_DRAIN_TIMEOUT_S": "5"}
    with serving(tmp_path, index=index_dir, embedder=embedder_dir, arguments=arguments, **settings) as serve:
        assert serve.stubs("retrieve") == []
        flag.touch()
        assert wait_until(lambda: "mended" in serve.events_of("retriever"), BACK_S), serve.health()
        assert wait_until(serve.is_ready, BACK_S), serve.health()
        for model in ("embedder", "retriever"):
            for stub in serve.stubs(model):
                os.kill(stub.pid, signal.SIGKILL)
        assert wait_until(lambda: serve.events_of("retriever").count("mended") == 2, BACK_S), serve.health()
        assert wait_until(lambda: "mended" in serve.events_of("embedder"), BACK_S), serve.health()
        assert wait_until(serve.is_ready, BACK_S), serve.health()
        assert serve.health()["restarts"] == 0, serve.events()
        serve.stop()


def test_a_server_that_is_asked_too_much_is_slow_and_is_left_to_its_work(
    tmp_path: Path, index_dir: Path, embedder_dir: Path
) -> None:
    slow = {"TRITONRAG_EMBEDDER_PRECISION": "fp32", "TRITONRAG_EMBEDDER_INSTANCES": "1"}
    waits = {"TRITONRAG_LIMITS_WAITING": "2000", "TRITONRAG_LIMITS_WAIT_S": "30"}
    with serving(tmp_path, index=index_dir, embedder=embedder_dir, **slow, **waits) as serve:
        references = take_references(serve.grpc_url, kinds=("embed",))
        began_s = time.monotonic()
        with Load(serve.grpc_url, references, rate_per_s=RATE_PER_S, deadline_s=10, kinds=("embed",)) as load:
            assert wait_until(lambda: len(load.tally.outcomes) >= REQUESTS, 120)
            assert serve.health()["live"]
        assert load.tally.faults() == []
        assert load.tally.answered(after_s=began_s)
        told = [one["event"] for one in serve.events()]
        assert not {"stub_hung", "stub_died", "mending", "triton_hung", "triton_ended"} & set(told), told
        assert wait_until(lambda: set(serve.health()["models"].values()) == {"good"}, BACK_S)
        serve.stop()
