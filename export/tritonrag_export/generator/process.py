"""Runs an export in a process of its own: gigabytes of memory go back at its end, a crash is an error, its chatter stays out."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import IO, Any, Final

from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError, RagError, UnavailableError

Report = Callable[[str, float], None]

_WORKER: Final = "tritonrag_export.generator.worker"
# A hub that can't be reached costs minutes of retries, and an export needs none: it must say what is missing at once.
_ENVIRONMENT: Final[Mapping[str, str]] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_MODULE_LOADING": "LAZY",
    # The builder asks git for a commit and writes it into the graph: that of whatever checkout its environment lies in, so that the
    # same model had another fingerprint after each commit. Without a repository it writes its own release's.
    "GIT_DIR": os.devnull,
}
_ERRORS: Final = {error.code: error for error in (BadRequestError, NotFoundError, UnavailableError, InternalError)}


def run_worker(task: str, job: Any, report: Report) -> None:  # noqa: ANN401 - a job's dataclass
    """Do `job` (a dataclass, sent as JSON) and relay its steps. Raises what the job raises, InternalError if it crashes."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(  # -P: a torch.py in the current folder must not be taken for torch
            [sys.executable, "-P", "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env={**os.environ, **_ENVIRONMENT},
        )
        try:
            _follow(process, json.dumps({"task": task, "job": _plain(job)}), report, log)
        finally:
            process.kill()
            process.communicate()


def _follow(process: "subprocess.Popen[str]", request: str, report: Report, log: IO[str]) -> None:
    assert process.stdin is not None  # noqa: S101 - asked for above
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(request + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it ended before it read: its log says why
    for line in process.stdout:
        message = json.loads(line)
        if "step" in message:
            report(message["step"], message["fraction"])
        elif "error" in message:
            raise _ERRORS.get(message["error"], InternalError)(message["message"])
        else:
            return
    raise _crash(process.wait(), log)


def _crash(status: int, log: IO[str]) -> RagError:
    if status < 0:
        name = signal.Signals(-status).name
        hint = (
            "; the machine may be out of memory: an export takes about 16 bytes a parameter"
            if name == "SIGKILL"
            else ""
        )
        return InternalError(f"the export was ended by {name}{hint}")
    log.seek(0)
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    return InternalError(f"the export failed: {lines[-1] if lines else f'exit status {status}'}")


def _plain(value: Any) -> Any:  # noqa: ANN401 - any part of a job
    """As JSON has it: dataclasses and mappings as objects, paths as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value.absolute()) if isinstance(value, Path) else value
