"""FAISS on the GPU behind our own device interface: recall, speed, memory, and filters that let nothing through."""

import gc
import time
from dataclasses import dataclass
from typing import Any, Final

import faiss as typed_faiss
import numpy as np

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index import Index
from tritonrag_backends.index.gpu.device import Device, DeviceKind
from tritonrag_backends.index.gpu.faiss_gpu import GpuDevice, count_gpus
from tritonrag_backends.index.gpu.finder import Finder, Part
from tritonrag_backends.index.gpu.shapes import index_bytes
from tritonrag_backends.index.gpu.stand_in import CpuDevice
from tritonrag_backends.index.vectors import Float32Array, Int64Array, StoredVectors
from tritonrag_backends.settings import RetrieverSettings
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_perf.gpu.faiss_search import Chosen, K, best_rows, place, recall
from tritonrag_perf.gpu.part import Run
from tritonrag_perf.gpu.timing import Spread, rate, seconds_a_call
from tritonrag_perf.gpu.vectors import FARTHEST, NEAREST, kth_scores, make_vectors
from tritonrag_perf.questions import draw_questions

faiss: Any = typed_faiss

# The cheap ones first; each takes about so many seconds of a part for a million vectors, an allowance.
_KINDS: Final[dict[DeviceKind, float]] = {"flat": 6.0, "ivf_flat": 8.0, "ivf_pq": 10.0, "cagra": 18.0}
_FIXED_S: Final = 10.0
_BATCHES: Final = (1, 32, 1024)
_SHARES: Final = (0.5, 0.01)
_TINY_SHARES: Final = (0.5, 0.3)  # below 1,000 rows the CPU compares with all of them, and no device is asked
_TARGET: Final = 0.95
_LEAST_RECALL: Final = 0.90  # of approximate kinds, which are tuned on stored rows and asked questions
_MOST_LEFT: Final = 0.05  # share of questions for which the CPU would have to be asked


def measure(run: Run) -> None:
    """Each number of vectors, and each kind over them. A kind that can't be placed fails its check alone."""
    device = open_device(run.device)
    real, queries = _embeddings(run, 64 if run.is_tiny else 1024)
    run.sheet.note(
        f"Vectors: {len(real):,} embeddings of Python's documentation, then variants of them at a cosine of {FARTHEST:g} to "
        f"{NEAREST:g}; {len(queries):,} questions about the documentation. On {device.name}, {faiss.get_compile_options().strip()}."
    )
    run.sheet.note(
        "Speed is that of the device index alone, candidates for 10 passages a question, host memory to host memory."
    )
    for rows in run.wishes.rows or ((4_000,) if run.is_tiny else (1_000_000, 10_000_000)):
        if not run.has_time_for(f"{rows:,} vectors", rows / 1e6 * 5):
            return
        run.tell(f"making {rows:,} vectors")
        vectors = make_vectors(real, rows, device=run.device)
        _measure_size(run, device, vectors, queries)


def open_device(name: str) -> Device:
    """GPU 0 by FAISS, or FAISS on the CPU in its place. Raises BadRequestError where this FAISS sees no GPU."""
    if name == "cpu":
        return CpuDevice("the CPU in a GPU's place")
    if count_gpus() == 0:
        raise BadRequestError(
            f"the installed FAISS ({faiss.get_compile_options().strip()}) sees no GPU; install faiss-gpu-cuvs in place of faiss-cpu"
        )
    return GpuDevice(0, temp_bytes=RetrieverSettings().gpu_temp_bytes)


def _embeddings(run: Run, count: int) -> tuple[Float32Array, Float32Array]:
    """The index's stored vectors, and the vectors of questions about its passages."""
    index = Index.open(run.index, fingerprint=None)
    real = np.concatenate([one.files.vectors.block(0, one.rows) for one in index.segments])
    passages = [Passage.from_json(data) for data in index.all_passages()]
    texts = draw_questions(passages, count=count, seed=2)
    return real, Encoder.open(run.embedder, precision="fp32").encode(texts).vectors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Case:
    """A kind over vectors, and what it is asked."""

    run: Run
    finder: Finder
    stored: StoredVectors
    queries: Float32Array

    @property
    def part(self) -> Part:
        """The only one: all is on one device."""
        (part,) = self.finder.parts
        return part

    @property
    def least_recall(self) -> float:
        """A flat index leaves nothing out."""
        return 1.0 if self.finder.exact else _LEAST_RECALL

    def search(self, chosen: Chosen, kth: Float32Array) -> tuple[Int64Array, float, float]:
        """What a segment would give, its recall@10, and the share of questions that the device left to the CPU."""
        found = best_rows(self.finder, self.stored, self.queries, chosen)
        left = (found < 0).any(axis=1)
        settled = recall(self.stored, self.queries[~left], found[~left], kth[~left]) if not left.all() else 0.0
        return found, settled, float(left.mean())


def _measure_size(run: Run, device: Device, vectors: Float32Array, queries: Float32Array) -> None:
    stored = StoredVectors(vectors, None)
    kth = kth_scores(vectors, queries, K, device=run.device)
    filters = [_filter(run, vectors, queries, share) for share in (_TINY_SHARES if run.is_tiny else _SHARES)]
    for kind, seconds in _KINDS.items():
        name = f"{kind} over {len(vectors):,} vectors"
        if not run.has_time_for(name, 1 if run.is_tiny else _FIXED_S + seconds * len(vectors) / 1e6):
            continue
        if kind == "cagra" and not device.abilities.cagra:
            run.sheet.note(f"not run: {name}, because this FAISS has no CAGRA")
            continue
        run.tell(name)
        began_s = time.perf_counter()
        try:
            finder = place(device, stored, kind, run.tell, target=_TARGET)
        except RagError as error:
            run.sheet.check(f"{name} is placed", ok=False, found=error, wanted="placed")
            continue
        build_s = time.perf_counter() - began_s
        case = _Case(run=run, finder=finder, stored=stored, queries=queries)
        _measure_kind(case, kth, build_s)
        for chosen, kth_allowed in filters:
            _measure_filter(case, chosen, kth_allowed)
        finder.close()
        gc.collect()


def _filter(run: Run, vectors: Float32Array, queries: Float32Array, share: float) -> tuple[Chosen, Float32Array]:
    """A random selection of that share of the rows, and the 10th best score in it for each query."""
    allowed = np.random.default_rng(int(1e3 * share)).random(len(vectors)) < share
    kth = kth_scores(vectors, queries, K, device=run.device, allowed=allowed)
    return Chosen(rows=len(vectors), allowed=allowed), kth


def _measure_kind(case: _Case, kth: Float32Array, build_s: float) -> None:
    finder, rows = case.finder, case.stored.rows
    _, first = case.part.index.search(case.queries, K, effort=finder.point.effort, allowed=None)
    _, reached, left = case.search(Chosen(rows=rows), kth)
    case.run.sheet.row(
        "kinds",
        rows=rows,
        kind=f"{finder.kind}{' fp16' if case.part.shape.fp16 else ''}",
        effort=finder.point.effort,
        recall_at_10=recall(case.stored, case.queries, first, kth),
        rescored_recall_at_10=reached,
        left_to_cpu=left,
        build_s=build_s,
        bytes=index_bytes(case.part.shape),
        **{f"batch_{batch}": _speed(case, batch) for batch in _BATCHES},
    )
    name = f"{finder.kind} over {rows:,} vectors"
    case.run.sheet.at_least(f"recall@10: {name}", reached, case.least_recall)
    case.run.sheet.at_most(f"share of questions left to the CPU: {name}", left, _MOST_LEFT)


def _speed(case: _Case, batch: int) -> Spread:
    count, effort = K * case.finder.point.rescore, case.finder.point.effort
    asked = np.ascontiguousarray(np.resize(case.queries, (batch, case.queries.shape[1])))
    repeats, least_s = (2, 0.005) if case.run.is_tiny else (5, 0.2)
    took = seconds_a_call(
        lambda: case.part.index.search(asked, count, effort=effort, allowed=None), repeats=repeats, least_s=least_s
    )
    return rate(batch, took)


def _measure_filter(case: _Case, chosen: Chosen, kth: Float32Array) -> None:
    """What comes back is allowed, whatever the device does; a flat index finds exactly what comparing with every row finds."""
    share, finder, sheet = chosen.count / chosen.rows, case.finder, case.run.sheet
    name = f"{finder.kind} over {case.stored.rows:,} vectors, {share:.2g} of them allowed"
    if not finder.suits(K, chosen):
        sheet.note(f"not asked of the device, because the CPU is the better way: {name}")
        return
    _, returned = case.part.index.search(case.queries, K, effort=finder.point.effort, allowed=chosen.bitmap)
    raw = _not_allowed(returned, chosen)
    found, reached, left = case.search(chosen, kth)
    sheet.row(
        "filters",
        rows=case.stored.rows,
        kind=finder.kind,
        share=share,
        queries=len(case.queries),
        not_allowed=raw,
        recall_at_10=reached,
        left_to_cpu=left,
    )
    sheet.at_most(f"rows passed on that are not allowed: {name}", _not_allowed(found, chosen), 0)
    if finder.filters:
        sheet.at_most(f"rows returned by the device that are not allowed: {name}", raw, 0)
    sheet.at_least(f"recall@10 among the allowed: {name}", reached, case.least_recall)


def _not_allowed(found: Int64Array, chosen: Chosen) -> int:
    assert chosen.allowed is not None  # noqa: S101 - a filter
    return int(np.count_nonzero(~chosen.allowed[found[found >= 0]]))
