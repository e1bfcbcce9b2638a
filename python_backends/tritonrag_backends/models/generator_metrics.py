"""The generator's own metrics; Triton serves them beside its own on the metrics port.

A call of Triton's is a message to another process (measured: 15 to 40 us). So an answer's figures are gathered in an
`AnswerTrail` and told at its end, and counts are added up here and told a few times a second.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import triton_python_backend_utils as pb_utils

from tritonrag_backends.generation.engine import Load
from tritonrag_backends.generation.trail import AnswerTrail
from tritonrag_backends.models.metrics import REFUSED, REFUSED_TEXT
from tritonrag_client.contract import GENERATOR
from tritonrag_client.errors import OverloadedError

FLUSH_S: Final = 0.1
# Seconds; from a cached answer to a long prompt on a slow machine.
_LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TOKEN_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

# Name, then what it counts; labels come with each count.
_COUNTERS: Final = {
    "tritonrag_generations_total": "Generations that ended, by engine and finish_reason; error counts bad requests too",
    REFUSED: REFUSED_TEXT,
    "tritonrag_generations_degraded_total": "Answers that say in `degraded` that something was given up",
    "tritonrag_engine_failures_total": "Answers for which the engine was given up, by the error's code",
    "tritonrag_generation_tokens_total": "Tokens by kind: prompt, cached (of the prompt, reused), completion",
    "tritonrag_answer_cache_total": "Answers by what the cache did: off, hit, shared (one generation for several), miss",
    "tritonrag_answer_store_total": "What happened in the store of known answers, by event: evicted, timeout, odd_value, ...",
    "tritonrag_citations_total": "Citations that name a source (kept), and those that name none (removed)",
    "tritonrag_prompt_passages_total": "Passages that came into prompts (used), and those without room (left_out)",
}
_HISTOGRAMS: Final = {
    "tritonrag_generation_retrieval_seconds": (
        "Until the passages were there, where the generator fetched them",
        _LATENCY_BUCKETS,
    ),
    "tritonrag_generation_first_token_seconds": ("From the request's arrival to its first text", _LATENCY_BUCKETS),
    "tritonrag_generation_token_seconds": ("Mean time between two tokens of an answer", _TOKEN_BUCKETS),
    "tritonrag_generation_seconds": ("From the request's arrival to the answer's end", _LATENCY_BUCKETS),
}


class GeneratorMetrics:
    """Lives in the generator's event loop."""

    def __init__(
        self, engine: str, instance: str, load: Callable[[], Load], store_counts: Callable[[], Mapping[str, int]]
    ) -> None:
        """`engine` is a label of all that it has a part in, `instance` one of the gauges, which several instances would overwrite.

        `load` tells how busy the engine is, `store_counts` what happened in the answer store so far; both are asked a few times a
        second, as long as there is something to tell.
        """
        self._engine, self._engine_load, self._store_counts = engine, load, store_counts
        self._told_store: dict[str, int] = {}
        self._counters = {name: _family(name, text, pb_utils.MetricFamily.COUNTER) for name, text in _COUNTERS.items()}
        self._histograms = {
            name: _family(name, text, pb_utils.MetricFamily.HISTOGRAM) for name, (text, _) in _HISTOGRAMS.items()
        }
        self._running_family = _family(
            "tritonrag_generations_running", "Generations that run now", pb_utils.MetricFamily.GAUGE
        )
        self._load_family = _family(
            "tritonrag_engine_generations",
            "Generations inside the engine by state: running, waiting for a place",
            pb_utils.MetricFamily.GAUGE,
        )
        self._running = self._running_family.Metric(labels={"model_instance": instance})
        self._load = {
            state: self._load_family.Metric(labels={"engine": engine, "model_instance": instance, "state": state})
            for state in ("running", "waiting")
        }
        self._children: dict[tuple[str, tuple[tuple[str, str], ...]], pb_utils.Metric] = {}
        self._counts: defaultdict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        self._told_load: Load | None = None
        self._flush: asyncio.TimerHandle | None = None

    def running(self, count: int) -> None:
        """Set how many run now."""
        self._running.set(count)
        self._tell_soon()

    def refused(self) -> None:
        """Count a request that found as many answers being written as may be."""
        self._count(REFUSED, 1, {"model": GENERATOR, "code": OverloadedError.code})

    def ended(self, trail: AnswerTrail) -> None:
        """Tell of an answer that has ended."""
        engine = {"engine": trail.engine}
        self._count("tritonrag_generations_total", 1, engine, finish_reason=trail.finish_reason or "error")
        self._count("tritonrag_answer_cache_total", 1, {}, outcome=trail.cache)
        if trail.degraded:
            self._count("tritonrag_generations_degraded_total", 1, engine)
        if trail.failure:
            self._count("tritonrag_engine_failures_total", 1, engine, error=trail.failure)
        self._count("tritonrag_citations_total", trail.citations_kept, engine, kind="kept")
        self._count("tritonrag_citations_total", trail.citations_removed, engine, kind="removed")
        self._count("tritonrag_prompt_passages_total", trail.passages_used, engine, kind="used")
        self._count("tritonrag_prompt_passages_total", trail.passages_left_out, engine, kind="left_out")
        self._count_tokens(trail)
        self._observe("tritonrag_generation_retrieval_seconds", trail.retrieved_after_s)
        self._observe("tritonrag_generation_first_token_seconds", trail.first_text_after_s)
        self._observe("tritonrag_generation_token_seconds", trail.seconds_per_token)
        self._observe("tritonrag_generation_seconds", trail.ended_after_s)

    def _count_tokens(self, trail: AnswerTrail) -> None:
        """Of answers that were written for this request alone or first: what was known already costs none."""
        usage, engine = trail.usage, {"engine": trail.engine}
        if usage is not None and trail.cache in {"off", "miss"}:
            self._count("tritonrag_generation_tokens_total", usage.prompt_tokens, engine, kind="prompt")
            self._count("tritonrag_generation_tokens_total", usage.cached_tokens, engine, kind="cached")
            self._count("tritonrag_generation_tokens_total", usage.completion_tokens, engine, kind="completion")

    def _count(self, name: str, amount: float, labels: dict[str, str], **more: str) -> None:
        if amount:
            self._counts[name, tuple({**labels, **more}.items())] += amount
            self._tell_soon()

    def _observe(self, name: str, value_s: float | None) -> None:
        if value_s is not None:
            self._child(name, (("engine", self._engine),), _HISTOGRAMS[name][1]).observe(value_s)

    def _tell_soon(self) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self._tell)

    def _tell(self) -> None:
        self._flush = None
        self._tell_load()
        for event, total in self._store_counts().items():
            self._counts["tritonrag_answer_store_total", (("event", event),)] += total - self._told_store.get(event, 0)
            self._told_store[event] = total
        counts, self._counts = self._counts, defaultdict(float)
        for (name, labels), amount in counts.items():
            if amount:
                self._child(name, labels).increment(amount)

    def _tell_load(self) -> None:
        load = self._engine_load()
        if load != self._told_load:
            self._told_load = load
            self._load["running"].set(load.running)
            self._load["waiting"].set(load.waiting)
        if load.running or load.waiting:  # it changes by itself, without a request's coming or going
            self._tell_soon()

    def _child(self, name: str, labels: tuple[tuple[str, str], ...], buckets: Sequence[float] = ()) -> pb_utils.Metric:
        key = name, labels
        if key not in self._children:
            family = self._histograms[name] if buckets else self._counters[name]
            extra = {"buckets": list(buckets)} if buckets else {}
            self._children[key] = family.Metric(labels=dict(labels), **extra)
        return self._children[key]


def _family(name: str, description: str, kind: int) -> pb_utils.MetricFamily:
    # Families are kept for the sake of their metrics: one that outlives its family hangs Triton's calls for tenths of a second.
    return pb_utils.MetricFamily(name=name, description=description, kind=kind)
