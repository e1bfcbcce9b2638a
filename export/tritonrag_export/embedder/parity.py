"""Holds the exported graphs to the float64 reference, in every layout in which they will be run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnxruntime as ort

from tritonrag_backends.embedding.buckets import pad
from tritonrag_backends.embedding.format import Parity
from tritonrag_backends.embedding.packing import Batch, one_per_row, pack
from tritonrag_backends.embedding.session import open_session, run_batch
from tritonrag_client.contract import ATTENTION_MASK, INPUT_IDS
from tritonrag_client.errors import InternalError
from tritonrag_export.embedder.reference import Float64Array, ReferenceEncoder
from tritonrag_export.embedder.source import SourceModel

FP32_MAX_ABS_DIFFERENCE: Final = 1e-5  # all-MiniLM-L6-v2: 2.8e-7
INT8_MIN_COSINE: Final = 0.985  # all-MiniLM-L6-v2: worst 0.994, mean 0.998
FP16_MIN_COSINE: Final = 0.999  # all-MiniLM-L6-v2: 0.9999995
PARITY_TEXTS: Final = (
    "",
    "Why?",
    "What does the walrus operator do?",
    "How do I read a file line by line without loading it all into memory?",
    "def area(radius: float) -> float:\n    return math.pi * radius ** 2",
    "Grüße aus Zürich, 東京 and São Paulo 🙂",
    "A context manager sets a resource up on entry and tears it down on exit, also when an exception leaves the block.",
    "The garbage collector finds reference cycles that reference counting alone can't free. " * 6,
    "Immutable objects may be keys of a dictionary because their hash never changes during their lifetime. " * 20,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graphs:
    """Serialised ONNX models: the portable graph, the smoothed CPU graph before and after quantisation, the padded one."""

    portable: bytes
    cpu: bytes | None = None
    int8: bytes | None = None
    fp16: bytes | None = None


def check_parity(source: SourceModel, graphs: Graphs, ids: Sequence[Sequence[int]]) -> Parity:
    """Compare on the given texts (token ids). Raises InternalError with the figure where a graph is off."""
    reference = ReferenceEncoder(source)
    expected = np.stack([reference.encode(text) for text in ids])
    exact = [model for model in (graphs.portable, graphs.cpu) if model is not None]
    fp32 = np.concatenate([_encode_in_every_layout(model, ids) for model in exact])
    int8 = None if graphs.int8 is None else (_encode_in_every_layout(graphs.int8, ids) * expected).sum(axis=2)
    parity = Parity(
        texts=len(ids),
        fp32_max_abs_difference=float(np.abs(fp32 - expected).max()),
        int8_min_cosine=None if int8 is None else float(int8.min()),
        int8_mean_cosine=None if int8 is None else float(int8.mean()),
        fp16_min_cosine=None if graphs.fp16 is None else _fp16_min_cosine(graphs.fp16, ids, expected),
    )
    _hold(parity)
    return parity


def _encode_in_every_layout(model: bytes, ids: Sequence[Sequence[int]]) -> Float64Array:
    """float64 [layouts, texts, dim]: each text alone; padded, one per row; packed."""
    lengths = [len(text) for text in ids]
    alone = [Batch(rows=1, row_tokens=length, texts=(text,), starts=(0,)) for text, length in enumerate(lengths)]
    layouts = (alone, [one_per_row(lengths)], pack(lengths, batch_tokens=sum(lengths)))
    session = open_session(model, threads=1)
    vectors = np.empty((len(layouts), len(ids), session.get_outputs()[0].shape[1]))
    for layout, batches in enumerate(layouts):
        for batch in batches:
            vectors[layout, list(batch.texts)] = run_batch(session, batch, ids)
    return vectors


def _fp16_min_cosine(model: bytes, ids: Sequence[Sequence[int]], expected: Float64Array) -> float:
    """Over texts alone and all together, padded, by ONNX Runtime on the CPU: it computes FP16 in FP32 and rounds each result."""
    session = open_session(model, threads=1)
    alone = np.concatenate([encode_padded(session, [text]) for text in ids])
    together = encode_padded(session, ids)
    cosines = (
        np.stack([alone, together]) * expected / np.linalg.norm(np.stack([alone, together]), axis=2, keepdims=True)
    )
    return float(cosines.sum(axis=2).min())


def encode_padded(session: ort.InferenceSession, ids: Sequence[Sequence[int]]) -> Float64Array:
    """float64 [texts, dim] by a padded graph, as wide as the longest text."""
    input_ids, attention_mask = pad(ids, max(map(len, ids)))
    (vectors,) = session.run(["embedding"], {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask})
    return np.asarray(vectors, np.float64)


def _hold(parity: Parity) -> None:
    # Written so that NaN fails too.
    if not parity.fp32_max_abs_difference < FP32_MAX_ABS_DIFFERENCE:
        raise InternalError(
            f"the exported fp32 graph is off by {parity.fp32_max_abs_difference:.2g} from the reference; "
            f"less than {FP32_MAX_ABS_DIFFERENCE:.0e} is expected; nothing was written"
        )
    if parity.int8_min_cosine is not None and not parity.int8_min_cosine > INT8_MIN_COSINE:
        raise InternalError(
            f"the int8 graph's worst cosine to the reference is {parity.int8_min_cosine:.4f}; more than {INT8_MIN_COSINE} "
            "is expected: this model does not bear int8; nothing was written; export it with --no-int8, and let it be served with "
            "TRITONRAG_EMBEDDER_PRECISION=fp32"
        )
    if parity.fp16_min_cosine is not None and not parity.fp16_min_cosine >= FP16_MIN_COSINE:
        raise InternalError(
            f"the fp16 graph's worst cosine to the reference is {parity.fp16_min_cosine:.5f}; at least {FP16_MIN_COSINE} "
            "is expected: this model does not bear fp16; nothing was written"
        )
