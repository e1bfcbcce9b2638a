"""A process that hangs is told from one that has too much to do: the first is replaced, the second is left to its work."""

import shutil
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

# Waits for ever, once, without using any time: as a process does whose threads wait for each other.
HANGS_ONCE = """
import pathlib
import threading

from tritonrag_backends.models.retriever import TritonPythonModel as Real

FLAG = pathlib.Path("{flag}")


class TritonPythonModel(Real):
    def execute(self, requests):
        if FLAG.exists():
            FLAG.unlink()
            threading.Event().wait()
        return super().execute(requests)
"""


@pytest.fixture
def hanging(tmp_path: Path) -> tuple[Path, Path]:
    """A repository whose `retriever` hangs once the file is there, and the file."""
    repository, flag = tmp_path / "repository", tmp_path / "hang"
    shutil.copytree(find_model_repository(None), repository)
    (repository / "retriever" / "1" / "model.py").write_text(HANGS_ONCE.format(flag=flag))
    return repository, flag


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
