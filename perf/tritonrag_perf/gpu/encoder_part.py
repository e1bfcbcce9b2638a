"""The encoder: its vectors against the CPU's, and its speed against what the card allows."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from tritonrag_backends.embedding.buckets import pad
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.session import Float32Array
from tritonrag_backends.index import Index
from tritonrag_client.contract import Passage
from tritonrag_client.errors import RagError
from tritonrag_perf.gpu.encoder_runtimes import TENSORRT, Encode, buckets_of, read_shape, runtimes
from tritonrag_perf.gpu.part import Run
from tritonrag_perf.gpu.roofline import BertShape, Roof, measure_roof
from tritonrag_perf.gpu.timing import rate, seconds_a_call
from tritonrag_perf.questions import draw_questions

LEAST_COSINE: Final = 0.999
_BATCHES: Final = (1, 4, 16, 64)
_LENGTHS: Final = (16, 32, 64, 128, 256)
_TEXTS: Final = 512
_TEXTS_A_CALL: Final = 64
_FIRST_WORD, _LAST_WORD = 1_996, 29_000  # whole words and pieces of BERT's vocabulary, no special tokens
_CASE_S: Final = 4.0  # more than a case takes


def measure(run: Run) -> None:
    """Each runtime: parity first, then speed."""
    run.tell("peaks")
    roof = measure_roof(run.device, tiny=run.is_tiny)
    run.sheet.row("roof", of=roof.of, flops=roof.flops, bandwidth=roof.bandwidth)
    encoder = Encoder.open(run.embedder, precision="fp32", threads=0 if not run.is_tiny else 1)
    texts = _texts(run, 32 if run.is_tiny else _TEXTS)
    reference = encoder.encode(texts).vectors
    ids = encoder.tokenize(texts).ids
    shape = read_shape(run.embedder)
    for name, opening in runtimes(run.embedder, run.device, run.work / "tensorrt", run.sheet.note):
        run.tell(name)
        try:
            encode = opening()
        except RagError as error:
            _could_not_open(run, name, error)
            continue
        _compare(run, name, reference, _encode_all(run, encode, ids))
        _measure_speed(run, name, encode, shape, roof)


def _could_not_open(run: Run, name: str, error: RagError) -> None:
    """ONNX Runtime lists TensorRT wherever it was built with it; whether TensorRT itself is installed shows when it is opened."""
    if TENSORRT in name:
        run.sheet.note(f"not run: {name}: {error}")
    else:
        run.sheet.check(f"it opens: {name}", ok=False, found=error, wanted="opened")


def _texts(run: Run, count: int) -> list[str]:
    """Questions and whole passages in turn, so that all lengths are there."""
    passages = [Passage.from_json(data) for data in Index.open(run.index, fingerprint=None).all_passages()]
    questions = draw_questions(passages, count=count, seed=1)
    chosen = passages[:: max(1, len(passages) // count)]
    mixed = [text for pair in zip(questions, (one.text for one in chosen), strict=False) for text in pair]
    return mixed[:count]


def _encode_all(run: Run, encode: Encode, ids: Sequence[Sequence[int]]) -> Float32Array:
    """Padded to the buckets in which they would be served, texts of one bucket together."""
    buckets = buckets_of(run.embedder)
    lengths = np.array([buckets.fit(len(text)) for text in ids])
    vectors: Float32Array | None = None
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        for start in range(0, len(rows), _TEXTS_A_CALL):
            together = rows[start : start + _TEXTS_A_CALL]
            made = encode(*pad([ids[row] for row in together], int(length)))
            vectors = np.empty((len(ids), made.shape[1]), np.float32) if vectors is None else vectors
            vectors[together] = made
    assert vectors is not None  # noqa: S101 - there are texts
    return vectors


def _compare(run: Run, name: str, reference: Float32Array, vectors: Float32Array) -> None:
    cosines = np.einsum("nd,nd->n", reference.astype(np.float64), vectors.astype(np.float64))
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    run.sheet.row(
        "parity", runtime=name, texts=len(cosines), min_cosine=float(cosines.min()), mean_cosine=float(cosines.mean())
    )
    run.sheet.at_least(f"least cosine to the CPU's fp32 vectors: {name}", float(cosines.min()), LEAST_COSINE)
    run.sheet.at_most(f"vectors are of unit length: {name}", float(np.abs(lengths - 1).max()), 1e-3)


def _measure_speed(run: Run, name: str, encode: Encode, shape: BertShape, roof: Roof) -> None:
    """Sequences a second, all of the same length and without padding, host to host."""
    random = np.random.default_rng(0)
    batches, lengths = ((1, 4), (16, 32)) if run.is_tiny else (_BATCHES, _LENGTHS)
    repeats, least_s = (2, 0.005) if run.is_tiny else (5, 0.1)
    for tokens in (length for length in lengths if length <= shape.max_tokens):
        for batch in batches:
            if not run.has_time_for(f"{name}, batch {batch}, {tokens} tokens", _CASE_S):
                return
            ids = random.integers(_FIRST_WORD, _LAST_WORD, (batch, tokens)).astype(np.int32)
            mask = np.ones_like(ids)
            took = seconds_a_call(lambda ids=ids, mask=mask: encode(ids, mask), repeats=repeats, least_s=least_s)  # type: ignore[misc]
            least_s_possible = roof.least_s(batch * shape.flops(tokens), shape.least_bytes(batch, tokens))
            run.sheet.row(
                "speed",
                runtime=name,
                tokens=tokens,
                batch=batch,
                sequences_per_s=rate(batch, took),
                tflops=batch * shape.flops(tokens) / took.median / 1e12,
                of_roof=least_s_possible / took.median,
            )
