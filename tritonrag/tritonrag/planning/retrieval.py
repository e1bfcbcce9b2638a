"""Ways to hold and search the index, best first: on the CPU where that suffices, else on the GPUs, from exact to small."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from tritonrag.planning.cards import Card
from tritonrag.planning.cpu_rates import MOST_RECALL, lexical_s, searches_a_second
from tritonrag.planning.encoder_load import Encoder
from tritonrag.planning.index_sizes import HostBytes, gpu_build_bytes, gpu_index_bytes, host_bytes
from tritonrag.planning.request import PlanRequest
from tritonrag_backends.choices import Kind, VectorType
from tritonrag_backends.index.gpu.device import DeviceKind
from tritonrag_backends.index.gpu.shapes import CAGRA_DEGREE, sub_quantizers
from tritonrag_backends.index.kinds import choose, lists
from tritonrag_backends.settings import RetrieverSettings

Placement = Literal["replicate", "shard"]

# DESIGN.md gives latencies at 70 % of the own maximum: beyond that queues grow fast.
TARGET_LOAD: Final = 0.7
HOST_SHARE: Final = 0.8  # of the host's memory; the rest is for Triton's processes and the system (our assumption)
SEARCHING_CORES: Final = 0.5  # the retriever takes half of the cores unless told otherwise (settings.retriever.threads)
TEMP_BYTES: Final[int] = RetrieverSettings().gpu_temp_bytes
CONTEXT_BYTES: Final = 2**29  # of CUDA in a process that uses a GPU (our assumption)
_MOST_FLAT_SCAN_S: Final = 0.005  # what a batch's exact search may keep a GPU from its language model
_MOST_GPU_SHARE: Final = 0.5
_BATCH: Final = 32  # questions that share one reading of a flat index
# Lists searched for recall 0.97 to 0.98: 124 at 100,000 rows, 179 at 1M (docs/benchmarks/index-kinds.md, index-kinds-1m.md).
_PROBES_AT_1M: Final = 179
_PROBES_POWER: Final = 0.16
_CAGRA_ITOPK: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """One way to search.

    `core_s`: of the CPU for one question; `search_s`: what a question alone waits; `gpu_bytes`: on each GPU that searches, with
    FAISS's work and CUDA's context; `build_bytes`: the most while it is loaded; `gpu_searches_s`: the limit of all GPUs;
    `gpu_share`: of each GPU's time at the asked rate.
    """

    device: Literal["cpu", "gpu"]
    kind: Kind
    gpu_kind: DeviceKind | None = None
    placement: Placement = "replicate"
    words: bool
    vectors: VectorType
    host: HostBytes
    core_s: float
    search_s: float
    gpu_bytes: int = 0
    build_bytes: int = 0
    gpu_searches_s: float = float("inf")
    gpu_share: float = 0.0

    @property
    def host_needed(self) -> int:
        """Bytes that should be in the host's memory."""
        return self.host.searched(words=self.words)

    def cores_suffice(self, request: PlanRequest) -> bool:
        """Whether the retriever's half of the cores does the asked rate at the target load."""
        return request.qps * self.core_s <= request.cores * SEARCHING_CORES * TARGET_LOAD


def retrievals(request: PlanRequest) -> Iterator[Retrieval]:
    """Every way that is allowed, best first; at least one where the CPU may search or there are GPUs.

    On the CPU where that suffices: GPUs have the language model to serve. With words where the cores suffice for them too.
    """
    on_cpu = [_on_cpu(request, words=words) for words in _words(request)] if request.retrieval != "gpu" else []
    sufficing = [way for way in on_cpu if way.cores_suffice(request)]
    yield from sufficing
    if request.retrieval != "cpu":
        for words in _words(request):
            yield from _on_gpus(request, words=words)
    yield from (way for way in on_cpu if way not in sufficing)


def fits_host(request: PlanRequest, needed: int) -> bool:
    """Whether so many bytes may be in the host's memory."""
    return needed <= request.memory_bytes * HOST_SHARE


def _kind(request: PlanRequest) -> Kind:
    return "flat" if request.recall > MOST_RECALL else choose("auto", request.rows)


def _words(request: PlanRequest) -> tuple[bool, ...]:
    """Whether BM25 is searched too: as asked; else with it where cores and memory suffice for it, then without."""
    if request.mode != "auto":
        return (request.mode == "hybrid",)
    enough_cores = request.qps * lexical_s(request.rows) <= request.cores * SEARCHING_CORES * TARGET_LOAD
    host, _ = _host(request, _kind(request), words=True, searching=1)
    return (True, False) if enough_cores and fits_host(request, host.searched(words=True)) else (False,)


def _on_cpu(request: PlanRequest, *, words: bool) -> Retrieval:
    kind = _kind(request)
    core_s = 1 / searches_a_second(kind, rows=request.rows, dims=request.dim, recall=request.recall)
    core_s += lexical_s(request.rows) if words else 0.0
    host, vectors = _host(request, kind, words=words, searching=1)
    return Retrieval(device="cpu", kind=kind, words=words, vectors=vectors, host=host, core_s=core_s, search_s=core_s)


def _host(request: PlanRequest, kind: Kind, *, words: bool, searching: int) -> tuple[HostBytes, VectorType]:
    """The index's bytes with the widest vectors that fit the host; with the narrowest where none do."""
    for vectors in request.vectors:
        host = host_bytes(
            kind=kind,
            rows=request.rows,
            dims=request.dim,
            vectors=vectors,
            text_bytes=request.text_bytes,
            searching=searching,
        )
        if fits_host(request, host.searched(words=words)):
            break
    return host, vectors


def _on_gpus(request: PlanRequest, *, words: bool) -> Iterator[Retrieval]:
    """From exact to small, each whole on every GPU and then dealt out: what fits there and leaves half of the GPUs' time."""
    if request.card is None:
        return
    exact, encoder_bytes = request.recall > MOST_RECALL, Encoder(dim=request.dim).gpu_bytes
    kinds: tuple[DeviceKind, ...] = ("flat",) if exact else ("flat", "cagra", "ivf_flat", "ivf_pq")
    placements: tuple[Placement, ...] = ("replicate", "shard") if request.gpus > 1 else ("replicate",)
    for kind in kinds:
        for placement in placements:
            way = _on_gpus_as(request, request.card, kind, placement, words=words)
            slow = kind == "flat" and not exact and way.search_s - way.core_s > _MOST_FLAT_SCAN_S
            fits = way.build_bytes + encoder_bytes <= request.card.memory_bytes
            if fits and not slow and way.gpu_share <= _MOST_GPU_SHARE:
                yield way


def _on_gpus_as(
    request: PlanRequest, card: Card, gpu_kind: DeviceKind, placement: Placement, *, words: bool
) -> Retrieval:
    kind = _kind(request)
    # A placed segment's FAISS file is not searched.
    host, vectors = _host(request, kind, words=words, searching=0)
    rows = -(-request.rows // (request.gpus if placement == "shard" else 1))
    question_s, alone_s = _gpu_search_s(gpu_kind, request, card, rows)
    searches = (request.gpus if placement == "replicate" else 1) / question_s
    lexical = lexical_s(request.rows) if words else 0.0
    work = TEMP_BYTES + CONTEXT_BYTES
    return Retrieval(
        device="gpu",
        kind=kind,
        gpu_kind=gpu_kind,
        placement=placement,
        words=words,
        vectors=vectors,
        host=host,
        core_s=lexical,
        search_s=alone_s + lexical,
        gpu_bytes=gpu_index_bytes(gpu_kind, rows=rows, dims=request.dim, fp16=request.fp16) + work,
        build_bytes=gpu_build_bytes(gpu_kind, rows=rows, dims=request.dim, fp16=request.fp16) + work,
        gpu_searches_s=searches,
        gpu_share=request.qps / searches,
    )


def _gpu_search_s(kind: DeviceKind, request: PlanRequest, card: Card, rows: int) -> tuple[float, float]:
    """GPU seconds of one question among others, and of one alone: bytes read over bandwidth, for flat also FLOPs over peak.

    flat: every vector, once for a batch of 32; 2 x rows x dims FLOPs. ivf: the searched lists' share of the codes. cagra: 64
    edges of each of 64 kept candidates, with their vectors.
    """
    value = 2 if request.fp16 else 4
    if kind == "flat":
        read_s = rows * request.dim * value / card.bytes_s
        return max(read_s / _BATCH, 2.0 * rows * request.dim / card.fp16_flops), read_s
    if kind == "cagra":
        read = _CAGRA_ITOPK * CAGRA_DEGREE * request.dim * value
    else:
        probes = min(lists(rows), _PROBES_AT_1M * (rows / 1_000_000) ** _PROBES_POWER)
        code = request.dim * value if kind == "ivf_flat" else sub_quantizers(request.dim)
        read = round(rows * probes / lists(rows) * code) + lists(rows) * request.dim * 4 // _BATCH
    return max(read, 1) / card.bytes_s, max(read, 1) / card.bytes_s
