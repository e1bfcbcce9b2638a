"""How many lanes of how many generations suit a CPU: `python -m tritonrag_perf.genai_lanes`.

On a CPU the library batches statically: a batch that runs takes nobody in. So the engine runs several batches ("lanes") in turn.
For each way to divide them clients come at random; every way has its turn in each round, in changing order, with the same
arrivals. Writes DIR/NAME.md.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonrag_backends.generation.engine import Message, Prompt, Sampling
from tritonrag_backends.generation.genai.engine import GenaiEngine, open_genai
from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_perf.machine import Machine

WAYS: Final = ((1, 1), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4), (4, 1))  # lanes, generations in each
_SEED: Final = 11
_SENTENCE: Final = "The quick brown fox number {} jumps over the lazy dog while the cat looks on. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One way in one round."""

    tokens_per_s: float
    first_token_s: float  # median over clients
    slowest_first_token_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Clients that each come once, within `spread_s`, with a prompt of `sentences` and for an answer of about `tokens`."""

    clients: int
    spread_s: float
    sentences: int
    tokens: int


async def measure(model: Path, lanes: int, batch: int, load: Load, seed: int) -> Outcome:
    """Open the engine that way, let the clients come, close it."""
    engine, rng = open_genai(GenaiSettings(model=model, lanes=lanes, batch=batch)), random.Random(seed)  # noqa: S311 - a load
    try:
        await _client(engine, 0.0, load, 0)  # warms up
        began_s = time.perf_counter()
        arrivals = [rng.uniform(0, load.spread_s) for _ in range(load.clients)]
        answers = await asyncio.gather(
            *(_client(engine, arrival, load, number) for number, arrival in enumerate(arrivals, start=1))
        )
        took_s = time.perf_counter() - began_s
    finally:
        await engine.close()
    firsts = [first for first, _ in answers]
    return Outcome(
        tokens_per_s=sum(tokens for _, tokens in answers) / took_s,
        first_token_s=statistics.median(firsts),
        slowest_first_token_s=max(firsts),
    )


async def _client(engine: GenaiEngine, arrival_s: float, load: Load, number: int) -> tuple[float, int]:
    """Seconds to the first text, and tokens of the answer."""
    await asyncio.sleep(arrival_s)
    text = "".join(_SENTENCE.format(number * 1000 + sentence) for sentence in range(load.sentences))
    messages = (Message(role="user", content=f"{text}\nTell this again in other words, at length."),)
    began_s, first_s, tokens = time.perf_counter(), 0.0, 0
    async for delta in engine.generate(
        Prompt(question="", passages=(), messages=messages), Sampling(max_tokens=load.tokens)
    ):
        first_s = first_s or time.perf_counter() - began_s
        tokens = delta.usage.completion_tokens if delta.usage else tokens
    return first_s, tokens


def main() -> None:
    """Measure every way in every round, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator-model", type=Path, default=Path(".tritonrag/generator"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--spread-s", type=float, default=4.0)
    parser.add_argument("--sentences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--name", default="genai-lanes")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    load = Load(clients=options.clients, spread_s=options.spread_s, sentences=options.sentences, tokens=options.tokens)
    outcomes: dict[tuple[int, int], list[Outcome]] = {way: [] for way in WAYS}
    rng = random.Random(_SEED)  # noqa: S311 - an order
    for round_number in range(options.rounds):
        for way in rng.sample(WAYS, len(WAYS)):
            outcomes[way].append(asyncio.run(measure(options.generator_model, *way, load, round_number)))
    options.output.mkdir(parents=True, exist_ok=True)
    page = render(outcomes, load, options.generator_model.name)
    (options.output / f"{options.name}.md").write_text(page, encoding="utf-8")


def render(outcomes: dict[tuple[int, int], list[Outcome]], load: Load, model: str) -> str:
    """The page: medians over rounds, and their range."""
    rounds = len(next(iter(outcomes.values())))
    lines = [
        f"Model {model}, {load.clients} clients within {load.spread_s:g} s, {load.tokens} tokens each, {rounds} rounds.",
        f"{Machine.this()}.",
        "",
        "| lanes | generations in each | tokens/s | first token, s, median client | slowest client |",
        "|---|---|---|---|---|",
    ]
    for (lanes, batch), runs in outcomes.items():
        cells = [
            _cell([run.tokens_per_s for run in runs], 0),
            _cell([run.first_token_s for run in runs], 1),
            _cell([run.slowest_first_token_s for run in runs], 1),
        ]
        lines.append(f"| {lanes} | {batch} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
