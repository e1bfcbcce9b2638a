"""Holds the exported graphs to the float64 reference, in every layout in which they will be run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tritonrag_backends.embedding.format import Parity
from tritonrag_backends.embedding.packing import Batch, one_per_row, pack
from tritonrag_backends.embedding.session import open_session, run_batch
from tritonrag_client.errors import InternalError
from tritonrag_export.embedder.reference import Float64Array, ReferenceEncoder
from tritonrag_export.embedder.source import SourceModel

FP32_MAX_ABS_DIFFERENCE: Final = 1e-5  # all-MiniLM-L6-v2: 2.8e-7
INT8_MIN_COSINE: Final = 0.985  # all-MiniLM-L6-v2: worst 0.994, mean 0.998
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
    """Serialised ONNX models: the portable graph, the smoothed CPU graph before quantisation, and after."""

    portable: bytes
    cpu: bytes
    int8: bytes


def check_parity(source: SourceModel, graphs: Graphs, ids: Sequence[Sequence[int]]) -> Parity:
    """Compare on the given texts (token ids). Raises InternalError with the figure where a graph is off."""
    reference = ReferenceEncoder(source)
    expected = np.stack([reference.encode(text) for text in ids])
    fp32 = np.concatenate([_encode_in_every_layout(model, ids) for model in (graphs.portable, graphs.cpu)])
    cosines = (_encode_in_every_layout(graphs.int8, ids) * expected).sum(axis=2)
    parity = Parity(
        texts=len(ids),
        fp32_max_abs_difference=float(np.abs(fp32 - expected).max()),
        int8_min_cosine=float(cosines.min()),
        int8_mean_cosine=float(cosines.mean()),
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


def _hold(parity: Parity) -> None:
    # Written so that NaN fails too.
    if not parity.fp32_max_abs_difference < FP32_MAX_ABS_DIFFERENCE:
        raise InternalError(
            f"the exported fp32 graph is off by {parity.fp32_max_abs_difference:.2g} from the reference; "
            f"less than {FP32_MAX_ABS_DIFFERENCE:.0e} is expected; nothing was written"
        )
    if not parity.int8_min_cosine > INT8_MIN_COSINE:
        raise InternalError(
            f"the int8 graph's worst cosine to the reference is {parity.int8_min_cosine:.4f}; more than {INT8_MIN_COSINE} "
            "is expected: this model does not bear int8; nothing was written"
        )
