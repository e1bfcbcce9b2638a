"""Sessions of several processes over one copy of the weights: a server's instances open the same model, and each packs it anew.

One of them lets ONNX Runtime write what it makes of the model: the optimised graph, and beside it the weights, packed for this CPU;
all of them map that file. It is good for this machine and this ONNX Runtime alone, and lies in the server's own folder.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from tritonrag_backends.embedding.session import open_session, session_options
from tritonrag_backends.run_dir import run_dir

_GRAPH, _WEIGHTS = "graph.onnx", "weights.bin"
_LEAST_BYTES: Final = 1024  # of a tensor that goes to the weights; smaller ones stay in the graph

_log = logging.getLogger(__name__)


def open_shared_session(model: Path, *, threads: int) -> ort.InferenceSession:
    """As `open_session`, with the weights of the other processes of this server; where no launcher of ours runs, `open_session`.

    Where the folder takes no such file (a full disk), the weights are this process's own.
    """
    folder = run_dir()
    if folder is None:
        return open_session(model, threads=threads)
    try:
        packed = _packed_once(model, folder)
    except (OSError, ort_errors.Fail, ort_errors.RuntimeException) as error:
        _log.warning("each process keeps weights of its own, since %s can't hold them: %s", folder, error)
        return open_session(model, threads=threads)
    return open_session(packed, threads=threads, packed=True)


def _packed_once(model: Path, folder: Path) -> Path:
    """The graph that was made of this very file; whoever comes first makes it, and the others wait."""
    status = model.stat()
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    ready = folder / f"packed-{'-'.join(map(str, identity))}"
    if not ready.exists():
        descriptor = os.open(ready.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not ready.exists():
                _pack(model, ready)
        finally:
            os.close(descriptor)
    return ready / _GRAPH


def _pack(model: Path, ready: Path) -> None:
    making = Path(tempfile.mkdtemp(prefix=f"{ready.name}-", dir=ready.parent))
    try:
        options = session_options(threads=1)
        options.optimized_model_filepath = str(making / _GRAPH)
        for key, value in {
            "optimized_model_external_initializers_file_name": _WEIGHTS,
            "optimized_model_external_initializers_min_size_in_bytes": str(_LEAST_BYTES),
            "save_external_prepacked_constant_initializers": "1",
        }.items():
            options.add_session_config_entry(f"session.{key}", value)
        ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        making.rename(ready)
    finally:
        shutil.rmtree(making, ignore_errors=True)
