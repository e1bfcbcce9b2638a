"""A plan for a person and for a machine: what lies where, the limits, the settings, and what to know about them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from tritonrag.planning.cpu_rates import LLM_EFFICIENCY
from tritonrag.planning.generation import RUNTIME_BYTES
from tritonrag.planning.planner import Plan, cpu_questions_s
from tritonrag.planning.quantities import gb, ms, three_digits
from tritonrag.planning.retrieval import HOST_SHARE, TARGET_LOAD
from tritonrag.planning.roofline import EFFICIENCY
from tritonrag.planning.settings_file import environment_of

_MEASURED_ROWS: Final = 1_000_000  # docs/benchmarks has no search of more


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit: by arithmetic, and as expected of real servers; `bound`: what binds it."""

    what: str
    limit: str
    expected: str
    asked: str
    bound: str


def headline(plan: Plan) -> str:
    """What was planned, in a line."""
    request = plan.request
    machine = f"{request.gpus}x{request.card.name}" if request.card else "no GPU"
    model = request.model.name if request.model else "no language model"
    return (
        f"{request.rows:,} passages of {request.dim} dimensions, {model}, {machine}, {request.cores} cores,"
        f" {gb(request.memory_bytes)} of memory, {request.qps:g} questions/s"
    )


def placements(plan: Plan) -> list[tuple[str, str]]:
    """What runs where, in words."""
    request, retrieval, generation = plan.request, plan.retrieval, plan.generation
    words = "dense and words (hybrid)" if retrieval.words else "dense alone"
    where = "CPU"
    if retrieval.gpu_kind is not None:
        spread = "whole on each GPU" if retrieval.placement == "replicate" else f"dealt out over {request.gpus} GPUs"
        where = f"GPU, {retrieval.gpu_kind}, {spread}"
    rows = [
        ("embedding", "GPU, each" if request.gpus else "CPU"),
        ("search", f"{where}; {words}"),
        ("index on disk", f"{retrieval.kind}, {retrieval.vectors} vectors"),
    ]
    if generation is not None:
        place = "CPU"
        if request.gpus:
            count = f"{generation.instances} instance{'s' if generation.instances > 1 else ''}"
            place = f"{count} of {generation.tensor_parallel} GPU{'s' if generation.tensor_parallel > 1 else ''}"
        rows.append(("language model", place))
    return rows


def host_memory(plan: Plan) -> list[tuple[str, str]]:
    """Bytes on the host: what a search touches, and what may stay on the disk."""
    host, retrieval, generation = plan.retrieval.host, plan.retrieval, plan.generation
    rows = [("vectors", gb(host.vectors)), (f"FAISS ({retrieval.kind})", gb(host.ann_memory))]
    if retrieval.words:
        rows.append(("words (BM25)", gb(host.words)))
    needed = retrieval.host_needed
    if generation is not None and not plan.request.gpus:
        rows += [("weights", gb(generation.weight_bytes)), ("keys and values", gb(generation.kv_bytes))]
        needed += generation.weight_bytes + generation.kv_bytes
    rows.append(("together", f"{gb(needed)} of {gb(plan.request.memory_bytes * HOST_SHARE)} that may be used"))
    rows.append(("index on disk", f"{gb(host.disk)} a version, passages {gb(host.passages)} of it"))
    return rows


def gpu_memory(plan: Plan) -> list[tuple[str, str]]:
    """Bytes on each GPU, in the order in which they are taken; empty without GPUs."""
    request, retrieval, generation = plan.request, plan.retrieval, plan.generation
    if request.card is None:
        return []
    encoder = plan.encoder.gpu_bytes
    rows = [("embedding model", gb(encoder))]
    if retrieval.gpu_bytes:
        rows.append((f"index ({retrieval.gpu_kind}) and FAISS's work", gb(retrieval.gpu_bytes)))
    taken = encoder + retrieval.gpu_bytes
    if generation is not None:
        rows += [
            ("weights", gb(generation.weight_bytes)),
            ("runtime", gb(RUNTIME_BYTES)),
            ("keys and values", f"{gb(generation.kv_bytes)}: {generation.sequences:,} answers at once an instance"),
        ]
        taken += generation.weight_bytes + RUNTIME_BYTES + generation.kv_bytes
    rows.append(("left", f"{gb(request.card.memory_bytes - taken)} of {gb(request.card.memory_bytes)}"))
    return rows


def limits(plan: Plan) -> list[Limit]:
    """The limits of each stage, and what binds it."""
    return [*_question_limits(plan), *_answer_limits(plan)]


def _question_limits(plan: Plan) -> Iterator[Limit]:
    request, retrieval = plan.request, plan.retrieval
    asked = f"{request.qps:g}"
    cores_s = cpu_questions_s(request, retrieval)
    if request.card is not None:
        encoded = request.gpus * request.card.fp16_flops / plan.encoder.flops_a_question
        yield Limit(
            what="embedding, questions/s", limit=three_digits(encoded), expected="", asked=asked, bound="compute"
        )
    if retrieval.gpu_kind is not None:
        searched = three_digits(retrieval.gpu_searches_s)
        yield Limit(what="search on GPUs, questions/s", limit=searched, expected="", asked=asked, bound="bandwidth")
    if cores_s != float("inf"):
        what = "search on the CPU, questions/s" if request.gpus else "embedding and search, questions/s"
        yield Limit(what=what, limit="", expected=three_digits(cores_s), asked=asked, bound="cores")


def _answer_limits(plan: Plan) -> Iterator[Limit]:
    request, generation = plan.request, plan.generation
    if generation is None:
        return
    tokens = request.answer.answer_tokens
    limit, expected = generation.limit_s, generation.expected_s
    yield Limit(
        what="answers/s",
        limit=three_digits(limit),
        expected=three_digits(expected),
        asked=f"{request.qps:g}",
        bound=generation.bound,
    )
    yield Limit(
        what="tokens written/s",
        limit=three_digits(limit * tokens),
        expected=three_digits(expected * tokens),
        asked=three_digits(request.qps * tokens),
        bound=generation.bound,
    )
    at_once = generation.sequences * generation.instances
    in_work = "more than fit" if generation.in_work is None else f"{generation.in_work:,}"
    yield Limit(what="answers at once", limit=f"{at_once:,}", expected="", asked=in_work, bound="KV memory")
    asked = "" if request.first_token_limit_s is None else ms(request.first_token_limit_s)
    loaded = "no end" if generation.first_token_s == float("inf") else ms(generation.first_token_s)
    yield Limit(
        what="first token, alone / at the asked rate",
        limit="",
        expected=f"{ms(generation.first_token_alone_s)} / {loaded}",
        asked=asked,
        bound="compute",
    )


def build_command(plan: Plan) -> str:
    """How to build the index that was planned for."""
    retrieval, request = plan.retrieval, plan.request
    mode = "hybrid" if retrieval.words else "dense"
    exact = " --kind flat" if retrieval.kind == "flat" else ""
    recall = "" if exact else f" --recall {request.recall:g}"
    return f"tritonrag index build PATH...{exact} --vectors {retrieval.vectors} --mode {mode}{recall}"


def notes(plan: Plan) -> list[str]:
    """What a reader should know before trusting the figures."""
    request, retrieval, generation = plan.request, plan.retrieval, plan.generation
    factor = EFFICIENCY if request.gpus else LLM_EFFICIENCY
    found = ["Limits are arithmetic on data sheets; figures of CPUs were measured on another machine. Nothing was run."]
    if generation is not None:
        found.append(
            f"Expected is {factor:g} of the limit; the asked rate should be at most {TARGET_LOAD * 100:.0f} % of it. Prompts of"
            f" {request.answer.prompt_tokens:,} tokens, answers of {request.answer.answer_tokens:,}; shared prefixes, which"
            " KV reuse spares, are not counted."
        )
    if request.assumed_host:
        found.append(
            f"Assumed: {request.cores} cores and {gb(request.memory_bytes)} on the host; --cores, --memory-gb."
        )
    if retrieval.device == "cpu" and request.rows > _MEASURED_ROWS and retrieval.kind != "flat":
        found.append(f"CPU search was measured up to {_MEASURED_ROWS:,} passages; beyond that it is extrapolated.")
    if not retrieval.words and request.mode == "auto":
        found.append(
            "Words (BM25) are left out by default: the cores or the memory would not do. Ask for hybrid where words matter."
        )
    if retrieval.gpu_kind is not None:
        found.append(
            "A merged index is loaded beside the old one: where both have no room, the CPU searches meanwhile (`degraded`)."
        )
    if generation is not None and request.card is not None and generation.tensor_parallel > 1:
        found.append(f"What {generation.tensor_parallel} GPUs tell each other over {request.card.link} is not counted.")
    if generation is not None and request.gpus and request.model_folder is None:
        found.append("Add TRITONRAG_TRTLLM_MODEL, the model's folder.")
    unused = request.gpus - generation.instances * generation.tensor_parallel if generation and request.gpus else 0
    if unused:
        found.append(f"{unused} of {request.gpus} GPUs hold no language model.")
    return found


def to_json(plan: Plan) -> dict[str, Any]:
    """Everything, for machines: sizes in bytes, times in seconds. An endless time is null."""
    request = asdict(plan.request)
    request["model_folder"] = str(plan.request.model_folder) if plan.request.model_folder else None
    generation = asdict(plan.generation) if plan.generation else None
    if generation is not None and generation["first_token_s"] == float("inf"):
        generation["first_token_s"] = None
    retrieval = asdict(plan.retrieval)
    if retrieval["gpu_searches_s"] == float("inf"):
        retrieval["gpu_searches_s"] = None
    return {
        "fits": not plan.problems,
        "problems": list(plan.problems),
        "nearest": plan.nearest or None,
        "profile": plan.profile,
        "request": request,
        "retrieval": retrieval,
        "host_bytes_needed": plan.retrieval.host_needed,
        "encoder_gpu_bytes": plan.encoder.gpu_bytes if plan.request.gpus else 0,
        "generation": generation,
        "limits": [asdict(limit) for limit in limits(plan)],
        "notes": notes(plan),
        "build": build_command(plan),
        "settings": environment_of(plan),
    }
