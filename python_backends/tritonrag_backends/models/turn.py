"""Who takes GPU memory first: the index, then the language model, whose engine takes a share of what is left.

    launcher    expect_index       how many retrievers there will be on GPUs, before Triton starts
    retriever   placing_index      around the opening of the index, in each instance
    generator   wait_for_index     before its engine is opened

They tell each other by files in `run_dir`, since Triton loads models in no order and in processes of their own.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tritonrag_backends.run_dir import run_dir
from tritonrag_backends.settings import Settings
from tritonrag_client.errors import UnavailableError

_EXPECTED: Final = "index-expected.json"
_READY: Final = "index-ready-"
_FAILED: Final = "index-failed-"
_POLL_S: Final = 0.05


def expect_index(folder: Path, *, instances: int, wait_s: float) -> None:
    """Tell the generator to wait for so many retrievers, for so long; nothing to be called where they search on CPUs.

    `folder` is the server's `run_dir`. `wait_s` must be less than what a server may take to get ready, so that the error is heard.
    """
    _write(folder / _EXPECTED, json.dumps({"instances": instances, "wait_s": wait_s}))


@contextmanager
def placing_index(instance: str) -> Iterator[None]:
    """Place the index inside: the generator is told when it is done, or that it failed. `instance` is unique in the server."""
    folder = run_dir()
    if folder is None:
        yield
        return
    try:
        yield
    except BaseException:
        _write(folder / f"{_FAILED}{instance}", "")
        raise
    _write(folder / f"{_READY}{instance}", "")


def wait_for_index(settings: Settings) -> None:
    """Return once every retriever has its index on its GPUs, at once where the engine takes no GPU memory or nobody is expected.

    Raises UnavailableError where a retriever failed or is not done in time; it names who is missing.
    """
    folder = run_dir()
    if folder is None or not _takes_gpu_memory(settings) or not (folder / _EXPECTED).is_file():
        return
    expected = json.loads((folder / _EXPECTED).read_text(encoding="utf-8"))
    deadline = time.monotonic() + expected["wait_s"]
    while len(ready := _instances(folder, _READY)) < expected["instances"]:
        if failed := _instances(folder, _FAILED):
            raise UnavailableError(
                f"the language model was not loaded, because {', '.join(failed)} could not open the index;"
                " the server's log says why"
            )
        if time.monotonic() > deadline:
            raise _too_late(ready, **expected)
        time.sleep(_POLL_S)


def _too_late(ready: list[str], *, instances: int, wait_s: float) -> UnavailableError:
    placed = f"; {', '.join(ready)} did" if ready else ""
    return UnavailableError(
        f"the language model was not loaded, because {instances - len(ready)} of {instances} retriever instances did not place"
        f" their index on GPUs within {wait_s:g} s{placed}. The server's log says what they are at; for a search without GPUs set"
        " TRITONRAG_RETRIEVER_DEVICE to cpu"
    )


def _takes_gpu_memory(settings: Settings) -> bool:
    engine = settings.generator.engine
    return engine == "tensorrt_llm" or (engine == "onnxruntime_genai" and settings.genai.execution == "cuda")


def _instances(folder: Path, prefix: str) -> list[str]:
    return sorted(path.name.removeprefix(prefix) for path in folder.iterdir() if path.name.startswith(prefix))


def _write(path: Path, text: str) -> None:
    """Appear at once, whole."""
    unfinished = path.with_name(f".{path.name}-{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
