"""A Triton that does not run, for what only reads where one would."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tritonrag.launcher import RunningServer

_NOWHERE = RunningServer(
    host="127.0.0.1",
    plain_host="127.0.0.1",
    http_port=1,
    grpc_port=2,
    metrics_port=3,
    pid=1,
    log_path=Path("log"),
    shm_prefix="none",
)


def running_server(**changes: Any) -> RunningServer:
    return replace(_NOWHERE, **changes)
