"""The process in which a model is exported: a job on stdin, messages on stdout, whatever libraries print on stderr.

    python -P -m tritonrag_export.generator.worker < {"task": "genai", "job": {...}}
    {"step": "building the graph", "fraction": 0.2}
    {"done": true}    or    {"error": "bad_request", "message": "..."}

stdin stays open as long as the parent lives: when it ends, so does this process, however the parent went.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from tritonrag_client.errors import RagError
from tritonrag_export.generator.making import ExportJob, Report, make
from tritonrag_export.generator.source import Source
from tritonrag_export.generator.trtllm import CheckpointJob, prepare


def main() -> int:
    """Do the job that stands on stdin; the exit status is 0 if its outcome could be told."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the builder and its libraries print
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(step: str, fraction: float) -> None:
        _send(messages, {"step": step, "fraction": fraction})

    try:
        _TASKS[request["task"]](request["job"], report)
    except RagError as error:
        _send(messages, {"error": error.code, "message": error.message})
    else:
        _send(messages, {"done": True})
    return 0


def _send(messages: IO[str], message: Mapping[str, Any]) -> None:
    messages.write(json.dumps(message) + "\n")
    messages.flush()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def _source(fields: Mapping[str, Any]) -> Source:
    return Source(name=fields["name"], path=Path(fields["path"]))


def _genai(job: Mapping[str, Any], report: Report) -> None:
    make(
        ExportJob(
            source=_source(job["source"]),
            folder=Path(job["folder"]),
            scratch=Path(job["scratch"]),
            precision=job["precision"],
            execution=job["execution"],
            adapters={name: Path(folder) for name, folder in job["adapters"].items()},
        ),
        report,
    )


def _tensorrt_llm(job: Mapping[str, Any], report: Report) -> None:
    prepare(
        CheckpointJob(
            source=_source(job["source"]),
            folder=Path(job["folder"]),
            scratch=Path(job["scratch"]),
            quantise=job["quantise"],
            form=job["form"],
            calibration=Path(job["calibration"]) if job["calibration"] else None,
        ),
        report,
    )


_TASKS: Mapping[str, Callable[[Mapping[str, Any], Report], None]] = {"genai": _genai, "tensorrt-llm": _tensorrt_llm}

if __name__ == "__main__":
    sys.exit(main())
