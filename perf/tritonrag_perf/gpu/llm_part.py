"""A language model of a real size streaming through `rag`, against its engine asked directly with the same prompts."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from tritonrag.launcher import TritonServer
from tritonrag_backends.generation.openai.engine import open_openai
from tritonrag_backends.generation.openai.settings import OpenaiSettings
from tritonrag_backends.index import Index
from tritonrag_backends.prompting.settings import PromptSettings
from tritonrag_backends.settings import GeneratorSettings
from tritonrag_client import AsyncRagClient, Timeouts
from tritonrag_client.contract import RAG, Passage
from tritonrag_perf.gpu.llm_model import SHAPES, make_model
from tritonrag_perf.gpu.llm_server import transformers_server
from tritonrag_perf.gpu.llm_sides import FENCE_KEY, Asked, Burst, Sides, Written, burst
from tritonrag_perf.gpu.part import Run
from tritonrag_perf.gpu.serving import check_nothing_left, gpu_options
from tritonrag_perf.gpu.timing import Spread
from tritonrag_perf.questions import draw_questions

LEAST_RATE: Final = 0.90  # tokens/s through `rag` over the engine's own
MOST_ADDED_MS: Final = 10.0  # to the first token by embedding, search and prompt, at one client
_CONTEXT_TOKENS: Final = 8_192
_SEED: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is asked. A round asks each side `questions` times the clients; `warm_ups` rounds are thrown away."""

    shape: str
    max_tokens: int
    questions: int
    clients: tuple[int, ...]
    rounds: int
    warm_ups: int = 1

    @classmethod
    def of(cls, run: Run) -> "Plan":
        """By scale."""
        if run.is_tiny:
            return cls(shape=run.wishes.llm or "tiny", max_tokens=8, questions=1, clients=(1, 2), rounds=2)
        return cls(shape=run.wishes.llm or "8b", max_tokens=128, questions=2, clients=(1, 4), rounds=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Both sides with the same questions; milliseconds of `retrieve` alone, for the first of them."""

    engine: Burst
    rag: Burst
    retrieve_ms: float


def measure(run: Run) -> None:
    """Make the model, start its server and Triton, measure."""
    plan = Plan.of(run)
    shape = SHAPES[plan.shape]
    run.tell(f"making a model of {shape.parameters / 1e9:.2f} billion weights")
    folder = run.work / f"llm-{plan.shape}"
    if not (folder / "config.json").is_file():
        make_model(folder, shape, device=run.device)
    run.sheet.note(
        f"Random weights in the shape of {plan.shape}: {shape.parameters / 1e9:.2f} billion. The engine is transformers' own "
        f"server, asked by our `openai` engine; greedy, {plan.max_tokens} tokens an answer, which it never ends by itself."
    )
    run.tell("starting the model's server")
    with transformers_server(folder, run.work / "llm.log", device=run.device, start_s=run.left_s / 2) as url:
        openai = OpenaiSettings(
            url=url, model=str(folder), tokenizer=folder / "tokenizer.json", context_tokens=_CONTEXT_TOKENS
        )
        generator = GeneratorSettings(engine="openai", max_tokens=plan.max_tokens)
        options = gpu_options(
            run,
            generator=generator,
            openai=openai,
            prompt=PromptSettings(fence_key=SecretStr(FENCE_KEY)),
        )
        run.tell("starting Triton")
        with TritonServer() as server:
            running = server.start(options)
            asyncio.run(_measure(run, plan, running.grpc_url, openai, _questions(run.index, plan)))
        check_nothing_left(run, server)


def _questions(index: Path, plan: Plan) -> list[str]:
    passages = [Passage.from_json(data) for data in Index.open(index, fingerprint=None).all_passages()]
    return draw_questions(passages, count=plan.questions * max(plan.clients), seed=3)


async def _measure(run: Run, plan: Plan, url: str, openai: OpenaiSettings, questions: Sequence[str]) -> None:
    engine = open_openai(openai)
    timeouts = Timeouts(total_s=300.0)
    try:
        async with AsyncRagClient(url, model=RAG, timeouts=timeouts) as client:
            sides = Sides(client, engine, max_tokens=plan.max_tokens)
            asked = [await sides.prepare(question) for question in questions]
            for clients in plan.clients:
                run.tell(f"{clients} answers at once")
                rounds = await _rounds(run, plan, sides, asked, clients)
                if rounds:
                    _report(run, plan, asked, clients, rounds)
    finally:
        await engine.close()


async def _rounds(run: Run, plan: Plan, sides: Sides, asked: Sequence[Asked], clients: int) -> list[Round]:
    """Each asks both sides, which of them first is drawn: whoever comes second finds the server's caches warm."""
    rng, done, took_s = random.Random(_SEED), list[Round](), 0.0  # noqa: S311 - an order, no secret
    batches = [list(asked[start : start + clients]) for start in range(0, plan.questions * clients, clients)]
    for number in range((plan.rounds + plan.warm_ups) * len(batches)):
        if not run.has_time_for(f"rounds from the {number + 1}th on at {clients} answers at once", 2 * took_s):
            break
        before_s = run.left_s
        made = await _round(sides, batches[number % len(batches)], rng)
        took_s = before_s - run.left_s
        if number >= plan.warm_ups * len(batches):
            done.append(made)
    return done


async def _round(sides: Sides, batch: list[Asked], rng: random.Random) -> Round:
    steps: dict[str, Callable[[Asked], Awaitable[Written]]] = {"engine": sides.by_engine, "rag": sides.by_rag}
    bursts = {name: await burst(steps[name], batch) for name in rng.sample(list(steps), len(steps))}
    return Round(engine=bursts["engine"], rag=bursts["rag"], retrieve_ms=await sides.retrieve_ms(batch[0].question))


def _report(run: Run, plan: Plan, asked: Sequence[Asked], clients: int, rounds: Sequence[Round]) -> None:
    prompt_tokens = sum(one.prompt_tokens for one in asked) / len(asked)
    tokens = clients * plan.max_tokens
    for side, bursts in (("engine", [r.engine for r in rounds]), ("`rag`", [r.rag for r in rounds])):
        run.sheet.row(
            "streaming",
            side=side,
            clients=clients,
            prompt_tokens=prompt_tokens,
            answer_tokens=plan.max_tokens,
            first_token_ms=Spread.of([w.first_token_ms for b in bursts for w in b.written]),
            tokens_per_s=Spread.of([tokens / b.took_s for b in bursts]),
        )
    ratio = Spread.of([r.engine.took_s / r.rag.took_s for r in rounds])
    added = Spread.of([_first_ms(r.rag) - _first_ms(r.engine) for r in rounds])
    run.sheet.row("ratios", what="tokens/s", clients=clients, value=ratio)
    run.sheet.row("ratios", what="first token added, ms", clients=clients, value=added)
    run.sheet.row(
        "ratios", what="`retrieve` alone, ms", clients=clients, value=Spread.of([r.retrieve_ms for r in rounds])
    )
    _check(run, clients, rounds)
    if not run.is_tiny and run.device == "cuda":
        run.sheet.at_least(f"tokens/s through rag over the engine's own, {clients} at once", ratio.median, LEAST_RATE)
        if clients == 1:
            run.sheet.at_most("first token added by rag, ms", added.median, MOST_ADDED_MS)


def _check(run: Run, clients: int, rounds: Sequence[Round]) -> None:
    """Both sides did the same work: all answers are as long as asked for, and one at a time they are the same."""
    every = [one for r in rounds for side in (r.engine, r.rag) for one in side.written]
    ended = {one.finish_reason for one in every}
    run.sheet.check(
        f"answers end by length, {clients} at once", ok=ended == {"length"}, found=sorted(ended), wanted="length"
    )
    if clients == 1:
        same = sum(r.engine.written[0].text == r.rag.written[0].text for r in rounds)
        run.sheet.at_least("share of answers that are the same on both sides", same / len(rounds), 0.9)


def _first_ms(answers: Burst) -> float:
    return sum(one.first_token_ms for one in answers.written) / len(answers.written)
