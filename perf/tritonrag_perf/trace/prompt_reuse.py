"""How many prompt tokens of a trace a KV cache has already, by the order of the prompts' parts. Arithmetic: no server, no clock."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.trace.kv_cache import BlockNames, PrefixCache
from tritonrag_perf.trace.layouts import LAYOUTS
from tritonrag_perf.trace.requests import Trace

OWN: Final = "trace"  # the layout that the others are compared with
BLOCK_TOKENS: Final = 32  # TensorRT-LLM's default; vLLM has 16

# Milliseconds of a saturated GPU per token: Llama-3.1-8B in FP8 on an H200, from the throughputs that NVIDIA published for
# TensorRT-LLM 1.0 (2048 in and 128 out, 128 in and 128 out).
PROMPT_TOKEN_MS: Final = 0.0165
ANSWER_TOKEN_MS: Final = 0.069


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """One layout with one cache. `cache_tokens` None: an unbounded one.

    `percent` of all prompt tokens were there already; `of_own` times as many as in the trace's own layout. `speed_up` and
    `speed_up_of_own`: requests a second over those without any reuse, and over those with the trace's own layout, where tokens cost
    what they cost a saturated GPU.
    """

    layout: str
    cache_tokens: int | None
    reused_tokens: int
    percent: float
    of_own: float | None
    speed_up: float
    speed_up_of_own: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReuseRecord:
    """Every layout with every cache. `estimated`: kinds of parts whose lengths no file gave."""

    requests: int
    prompt_tokens: int
    answer_tokens: int
    estimated: tuple[str, ...]
    block_tokens: int
    rows: tuple[Reuse, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ReuseRecord":
        """Read it back."""
        rows = tuple(Reuse(**row) for row in data["rows"])
        return cls(**{**data, "estimated": tuple(data["estimated"]), "rows": rows})


def measure_reuse(
    trace: Trace,
    *,
    cache_tokens: Sequence[int | None] = (None,),
    block_tokens: int = BLOCK_TOKENS,
    progress: Callable[[str], None] = lambda _: None,
) -> ReuseRecord:
    """Every layout with every cache. Raises BadRequestError where a cache has not room for one block."""
    for tokens in cache_tokens:
        if tokens is not None and tokens < block_tokens:
            raise BadRequestError(f"the cache holds {tokens} tokens; give room for one block of {block_tokens} or more")
    caches = tuple(dict.fromkeys(cache_tokens))
    reused = dict[tuple[str, int | None], int]()
    for name in LAYOUTS:
        progress(name)
        prompts = _named(trace, name, block_tokens)
        for tokens in caches:
            cache = PrefixCache(None if tokens is None else tokens // block_tokens)
            reused[name, tokens] = block_tokens * sum(cache.use(blocks) for blocks in prompts)
    rows = [_row(trace, name, tokens, reused) for tokens in caches for name in LAYOUTS]
    return ReuseRecord(
        requests=len(trace.requests),
        prompt_tokens=trace.prompt_tokens,
        answer_tokens=trace.answer_tokens,
        estimated=trace.estimated,
        block_tokens=block_tokens,
        rows=tuple(rows),
    )


def _named(trace: Trace, layout_name: str, block_tokens: int) -> list[tuple[int, ...]]:
    layout, names = LAYOUTS[layout_name](), BlockNames(size=block_tokens)
    return [names.of(layout.arrange(request)) for request in trace.requests]


def _row(trace: Trace, name: str, tokens: int | None, reused: dict[tuple[str, int | None], int]) -> Reuse:
    mine, own = reused[name, tokens], reused[OWN, tokens]
    return Reuse(
        layout=name,
        cache_tokens=tokens,
        reused_tokens=mine,
        percent=100 * mine / trace.prompt_tokens,
        of_own=mine / own if own else None,
        speed_up=_cost_ms(trace, 0) / _cost_ms(trace, mine),
        speed_up_of_own=_cost_ms(trace, own) / _cost_ms(trace, mine),
    )


def _cost_ms(trace: Trace, reused_tokens: int) -> float:
    return PROMPT_TOKEN_MS * (trace.prompt_tokens - reused_tokens) + ANSWER_TOKEN_MS * trace.answer_tokens
