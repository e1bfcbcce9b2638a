"""Where the language model goes: how many GPUs share it, how many instances there are, what is left for keys and values."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tritonrag.planning import cpu_rates
from tritonrag.planning.cards import Card
from tritonrag.planning.encoder_load import Encoder
from tritonrag.planning.language_model import LanguageModel
from tritonrag.planning.request import PlanRequest
from tritonrag.planning.retrieval import HOST_SHARE, Retrieval
from tritonrag.planning.roofline import (
    EFFICIENCY,
    Bound,
    Speed,
    answers_a_second,
    bound_of,
    decode_step_s,
    first_token_s,
    prefill_s,
    sequences_for,
    sequences_that_fit,
)
from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_client.errors import BadRequestError

RUNTIME_BYTES: Final = 2 * 2**30  # on each GPU: CUDA's context, workspaces, activations of a step (our assumption)
KV_FRACTION: Final = 0.9  # of what is left, TensorRT-LLM's own free_gpu_memory_fraction; we leave it to the library
# What `rag` takes beyond retrieval and the engine, one client (docs/benchmarks/generation.md).
ADDED_S: Final = 0.005
_MOST_TENSOR_PARALLEL: Final = 8  # GPUs of one machine that talk fast enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The language model placed. Rates are of all instances together, `sequences` and times of one.

    `limit_s`: answers/s by the roofline; `expected_s`: by what real servers reach of it. `in_work`: answers in work at the asked
    rate, over all instances; None: it is not reached. `weight_bytes`, `kv_bytes`: on each GPU, or on the host.
    """

    tensor_parallel: int
    instances: int
    weight_bytes: int
    kv_bytes: int
    sequences: int
    limit_s: float
    expected_s: float
    bound: Bound
    in_work: int | None
    prompt_s: float
    first_token_s: float
    first_token_alone_s: float


def generations(request: PlanRequest, retrieval: Retrieval) -> Iterator[Generation]:
    """Every way to place the model beside this index that fits in memory, fewest GPUs an instance first."""
    model, card = request.model, request.card
    if model is None:
        return
    if card is None:
        found = _on_cpu(request, model, retrieval)
        if found is not None:
            yield found
        return
    for ways in tensor_parallels(model, request.gpus):
        found = _on_gpus(request, model, card, retrieval, ways)
        if found is not None:
            yield found


def tensor_parallels(model: LanguageModel, gpus: int) -> tuple[int, ...]:
    """Powers of two that divide the attention heads, up to 8 and to the GPUs there are."""
    return tuple(ways for ways in (1, 2, 4, _MOST_TENSOR_PARALLEL) if ways <= gpus and model.heads % ways == 0)


def kv_room(card: Card, *, weights: int, taken: int) -> int:
    """Bytes for keys and values on a GPU: what is left beside weights, what others took before, and the runtime, times 0.9."""
    return max(0, round((card.memory_bytes - weights - taken - RUNTIME_BYTES) * KV_FRACTION))


def _on_gpus(
    request: PlanRequest, model: LanguageModel, card: Card, retrieval: Retrieval, ways: int
) -> Generation | None:
    weights = -(-model.weight_bytes // ways)
    encoder = Encoder(dim=request.dim)
    taken = retrieval.gpu_bytes + encoder.gpu_bytes
    kv_bytes = kv_room(card, weights=weights, taken=taken)
    # KV heads are dealt out to the GPUs; where these are more, heads are held more than once.
    sequences = sequences_that_fit(model, request.answer, kv_bytes * min(ways, model.kv_heads))
    if sequences == 0:
        return None
    one = Speed(bytes_s=card.bytes_s, flops_s=model.flops_s(card))
    share = retrieval.gpu_share + request.qps * encoder.flops_a_question / (card.fp16_flops * request.gpus)
    return _placed(
        request,
        model,
        retrieval,
        speed=one.times(ways * max(0.0, 1 - share)),
        efficiency=EFFICIENCY,
        ways=ways,
        instances=request.gpus // ways,
        weights=weights,
        kv_bytes=kv_bytes,
        sequences=sequences,
        encoding_s=max(encoder.flops_a_question / card.fp16_flops, 2 * encoder.layer_params / card.bytes_s),
    )


def _on_cpu(request: PlanRequest, model: LanguageModel, retrieval: Retrieval) -> Generation | None:
    if model.precision in {"fp8", "nvfp4"}:
        raise BadRequestError(
            f"a CPU does not compute in {model.precision.upper()}, as {model.name} needs; take int8 or int4-awq"
        )
    encoder = Encoder(dim=request.dim)
    room = request.memory_bytes * HOST_SHARE - retrieval.host_needed - model.weight_bytes
    batch = GenaiSettings().batch
    sequences = min(batch, sequences_that_fit(model, request.answer, max(0.0, room)))
    left = 1 - request.qps * (retrieval.core_s + 1 / encoder.questions_a_core_second) / request.cores
    if sequences == 0 or left <= 0:
        return None
    speed = Speed(bytes_s=cpu_rates.LLM_BYTES_S * left, flops_s=cpu_rates.LLM_FLOPS_A_CORE * request.cores * left)
    return _placed(
        request,
        model,
        retrieval,
        speed=speed,
        efficiency=cpu_rates.LLM_EFFICIENCY,
        ways=1,
        instances=1,
        weights=model.weight_bytes,
        kv_bytes=round(sequences * request.answer.tokens * model.kv_bytes_per_token),
        sequences=sequences,
        encoding_s=1 / encoder.questions_a_core_second,
    )


def _placed(
    request: PlanRequest,
    model: LanguageModel,
    retrieval: Retrieval,
    *,
    speed: Speed,
    efficiency: float,
    ways: int,
    instances: int,
    weights: int,
    kv_bytes: int,
    sequences: int,
    encoding_s: float,
) -> Generation | None:
    if speed.bytes_s <= 0:
        return None
    answer, real = request.answer, speed.times(efficiency)
    limit = answers_a_second(model, answer, sequences, speed) * instances
    expected = limit * efficiency
    in_work = sequences_for(model, answer, request.qps / instances, most=sequences, speed=real)
    prompt = prefill_s(model, answer.prompt_tokens, real)
    before = encoding_s + retrieval.search_s + ADDED_S + decode_step_s(model, 1, answer.prompt_tokens, real)
    return Generation(
        tensor_parallel=ways,
        instances=instances,
        weight_bytes=weights,
        kv_bytes=kv_bytes,
        sequences=sequences,
        limit_s=limit,
        expected_s=expected,
        bound=bound_of(model, answer, sequences, speed),
        in_work=None if in_work is None else in_work * instances,
        prompt_s=prompt,
        first_token_s=before + first_token_s(prompt, request.qps / expected),
        first_token_alone_s=before + prompt,
    )
