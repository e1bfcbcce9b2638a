"""The encoder graph in ONNX Runtime: how a session is set up and how a packed batch becomes its input."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from tritonrag_backends.embedding.packing import Batch

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]


def open_session(
    model: Path | bytes, *, threads: int, spinning: bool = False, packed: bool = False
) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU, from a file or from a model's bytes, with `threads` threads per call.

    `packed`: ONNX Runtime has optimised this graph and packed its weights before (shared_session.py).
    """
    options = session_options(threads=threads, spinning=spinning)
    if packed:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def session_options(*, threads: int, spinning: bool = False) -> ort.SessionOptions:
    """How sessions are set up."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Idle threads that spin take the cores of the other instances: 2 instances are 1.66 times as fast without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    # Memory patterns are kept per input shape, and packed batches have very many shapes.
    options.enable_mem_pattern = False
    options.log_severity_level = 3  # errors only: warnings about its own optimiser are not for our users
    return options


def run_batch(session: ort.InferenceSession, batch: Batch, ids: Sequence[Sequence[int]]) -> Float32Array:
    """Encode one batch. `ids[t]` are the token ids of text t; returns FP32 [len(batch.texts), dim], row i for `batch.texts[i]`."""
    (embedding,) = session.run(["embedding"], to_inputs(batch, ids))
    result: Float32Array = embedding
    return result


def to_inputs(batch: Batch, ids: Sequence[Sequence[int]]) -> Mapping[str, Int64Array]:
    """The four input tensors of a batch (embedding/format.py lists them)."""
    texts = [ids[text] for text in batch.texts]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    text_index = np.arange(1, len(texts) + 1)
    positions = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.repeat(np.array(batch.starts, np.int64), lengths) + positions
    values = {
        "input_ids": np.fromiter((token for text in texts for token in text), np.int64, len(positions)),
        "position_ids": positions,
        "text_ids": np.repeat(text_index, lengths),
    }
    grids = {name: np.zeros(batch.places, np.int64) for name in values}
    for name, grid in grids.items():
        grid[places] = values[name]
    return {name: grid.reshape(batch.rows, batch.row_tokens) for name, grid in grids.items()} | {
        "text_index": text_index
    }
