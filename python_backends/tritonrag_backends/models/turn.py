"""Who takes GPU memory first: the index and the encoder, then the language model, whose engine takes a share of what is left.

    launcher             expect_turns      how many instances of which models will take GPU memory, before Triton starts
    retriever, encoder   taking_memory     around what takes it, in each instance
    generator            wait_for_turn     before its engine is opened

They tell each other by files in `run_dir`, since Triton loads models in no order and in processes of their own.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tritonrag_backends.run_dir import run_dir
from tritonrag_backends.settings import Settings
from tritonrag_client.errors import UnavailableError

_EXPECTED: Final = "gpu-memory-expected.json"
_TAKEN: Final = "gpu-memory-taken-"
_FAILED: Final = "gpu-memory-failed-"
_POLL_S: Final = 0.05


def expect_turns(folder: Path, instances: Mapping[str, int], *, wait_s: float) -> None:
    """Tell the generator to wait for so many instances of each model, for so long; not called where none takes GPU memory.

    `folder` is the server's `run_dir`. `wait_s` must be less than what a server may take to get ready, so that the error is heard.
    """
    _write(folder / _EXPECTED, json.dumps({"instances": dict(instances), "wait_s": wait_s}))


@contextmanager
def taking_memory(model: str, instance: str) -> Iterator[None]:
    """Take GPU memory inside: the generator is told when it is done, or that it failed. `instance` is unique in the server."""
    folder = run_dir()
    if folder is None:
        yield
        return
    try:
        yield
    except BaseException:
        _write(folder / f"{_FAILED}{model}-{instance}", "")
        raise
    _write(folder / f"{_TAKEN}{model}-{instance}", "")


def wait_for_turn(settings: Settings) -> None:
    """Return once all that are expected have their GPU memory, at once where the engine takes none or nobody is expected.

    Raises UnavailableError where one of them failed or is not done in time; it names who is missing.
    """
    folder = run_dir()
    if folder is None or not _takes_gpu_memory(settings) or not (folder / _EXPECTED).is_file():
        return
    expected = json.loads((folder / _EXPECTED).read_text(encoding="utf-8"))
    deadline = time.monotonic() + expected["wait_s"]
    for model, count in expected["instances"].items():
        _wait_for(folder, model, count, deadline, expected["wait_s"])


def _wait_for(folder: Path, model: str, count: int, deadline: float, wait_s: float) -> None:
    while len(ready := _instances(folder, f"{_TAKEN}{model}-")) < count:
        if failed := _instances(folder, f"{_FAILED}{model}-"):
            raise UnavailableError(
                f"the language model was not loaded, because {', '.join(failed)} failed to load; the server's log says why"
            )
        if time.monotonic() > deadline:
            raise _too_late(model, ready, count, wait_s)
        time.sleep(_POLL_S)


def _too_late(model: str, ready: list[str], count: int, wait_s: float) -> UnavailableError:
    loaded = f"; {', '.join(ready)} did" if ready else ""
    return UnavailableError(
        f"the language model was not loaded, because {count - len(ready)} of {count} instances of {model}, which take GPU memory"
        f" first, did not load within {wait_s:g} s{loaded}. The server's log says what they are at; give --ready-timeout-s more, or"
        f" set TRITONRAG_{'RETRIEVER_DEVICE' if model == 'retriever' else 'ENCODER_EXECUTION'} to cpu"
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
