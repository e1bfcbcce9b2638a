"""Time to first token through Triton against the engine alone: `python -m tritonrag_perf.first_token`.

One run measures, for each question and round in changing order: the engine alone in this process on the very prompt; `retrieve`;
a streamed answer through `rag` and through `generator`. What Triton adds is the answer's time less the other two.
Needs an index, an exported embedder and a language model for `onnxruntime_genai`. Writes DIR/NAME.md and DIR/NAME.json.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.generation.engine import Engine, Prompt, Sampling
from tritonrag_backends.generation.genai.engine import open_genai
from tritonrag_backends.settings import Settings, load_settings
from tritonrag_client import AsyncRagClient, SearchResult
from tritonrag_client.options import AnswerModel
from tritonrag_perf.labelled import read_labelled
from tritonrag_perf.machine import Machine
from tritonrag_perf.served_prompts import ServedPrompts

_FENCE_KEY: Final = "first-token"  # the same fences on both sides, so the same prompts
_SEED: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Milliseconds of one question in one round."""

    prompt_tokens: int
    engine_ms: float
    retrieve_ms: float
    rag_ms: float
    generator_ms: float

    @property
    def rag_added_ms(self) -> float:
        """What `rag` took beyond retrieval and the engine's own time."""
        return self.rag_ms - self.retrieve_ms - self.engine_ms

    @property
    def generator_added_ms(self) -> float:
        """The same on the path on which the generator fetches the passages."""
        return self.generator_ms - self.retrieve_ms - self.engine_ms


class Bench:
    """Holds both sides: a client of the server, and the engine in this process."""

    def __init__(self, clients: dict[AnswerModel, AsyncRagClient], engine: Engine, max_tokens: int) -> None:
        self._clients, self._engine, self._sampling = clients, engine, Sampling(max_tokens=max_tokens)
        self._prompts = ServedPrompts(engine, fence_key=_FENCE_KEY, max_tokens=max_tokens)

    async def sample(self, question: str, rng: random.Random) -> Sample:
        """Measure one question, the four in changing order."""
        found = await self._clients["rag"].search(question)
        assert isinstance(found, SearchResult)  # noqa: S101 - one question gives one result
        prompt, tokens = self._prompts.prompt(question, found)
        times: dict[str, float] = {}
        steps = {
            "engine_ms": lambda: self._engine_ms(prompt),
            "retrieve_ms": lambda: self._retrieve_ms(question),
            "rag_ms": lambda: self._answer_ms("rag", question),
            "generator_ms": lambda: self._answer_ms("generator", question),
        }
        for name in rng.sample(list(steps), len(steps)):
            times[name] = await steps[name]()
        return Sample(prompt_tokens=tokens, **times)

    async def _engine_ms(self, prompt: Prompt) -> float:
        began_s = time.perf_counter()
        async with aclosing(self._engine.generate(prompt, self._sampling)) as deltas:
            async for delta in deltas:
                if delta.text or delta.finish_reason:
                    return (time.perf_counter() - began_s) * 1e3
        raise AssertionError  # an answer has a last delta

    async def _retrieve_ms(self, question: str) -> float:
        began_s = time.perf_counter()
        await self._clients["rag"].search(question)
        return (time.perf_counter() - began_s) * 1e3

    async def _answer_ms(self, model: AnswerModel, question: str) -> float:
        began_s = time.perf_counter()
        async with self._clients[model].stream(question, max_tokens=self._sampling.max_tokens) as deltas:
            async for delta in deltas:
                if delta.text or delta.finish_reason:
                    took_ms = (time.perf_counter() - began_s) * 1e3
                    break
        await asyncio.sleep(0.05)  # the server leaves the answer meanwhile, not during the next measurement
        return took_ms


async def measure(
    settings: Settings, url: str, questions: Sequence[str], rounds: int, max_tokens: int
) -> list[list[Sample]]:
    """Samples by round; a first round, which warms everything up, is thrown away."""
    engine, rng = open_genai(settings.genai), random.Random(_SEED)  # noqa: S311 - an order, no secret
    try:
        async with AsyncRagClient(url, model="rag") as rag, AsyncRagClient(url, model="generator") as generator:
            bench = Bench({"rag": rag, "generator": generator}, engine, max_tokens)
            return [[await bench.sample(question, rng) for question in questions] for _ in range(rounds + 1)][1:]
    finally:
        await engine.close()


def main() -> None:
    """Start a server of our own, measure, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/demo-index"), help="index of the pydoc corpus")
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--generator-model", type=Path, default=Path(".tritonrag/generator"))
    parser.add_argument("--questions", type=Path, default=Path("perf/questions/pydoc.jsonl"), help="labelled questions")
    parser.add_argument("--count", type=int, default=20, help="questions of these")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--name", default="first-token")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    settings = load_settings(
        {
            "TRITONRAG_INDEX": str(options.index),
            "TRITONRAG_EMBEDDER_MODEL": str(options.embedder),
            "TRITONRAG_GENERATOR_ENGINE": "onnxruntime_genai",
            "TRITONRAG_GENAI_MODEL": str(options.generator_model),
            "TRITONRAG_PROMPT_FENCE_KEY": _FENCE_KEY,
        }
    )
    questions = [label.question for label in read_labelled(options.questions)[: options.count]]
    with TritonServer() as server:
        running = server.start(ServeOptions(settings=settings))
        rounds = asyncio.run(measure(settings, running.grpc_url, questions, options.rounds, options.max_tokens))
    options.output.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": asdict(Machine.this()),
        "rounds": [[asdict(sample) for sample in samples] for samples in rounds],
    }
    (options.output / f"{options.name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (options.output / f"{options.name}.md").write_text(render(rounds, options.generator_model.name), encoding="utf-8")


def render(rounds: Sequence[Sequence[Sample]], model: str) -> str:
    """The page: medians over questions, of each round; of these the median, the least and the greatest."""
    tokens = [sample.prompt_tokens for samples in rounds for sample in samples]
    lines = [
        f"Model {model}, {len(rounds[0])} questions, {len(rounds)} rounds. {Machine.this()}.",
        f"Prompts have {min(tokens)} to {max(tokens)} tokens, median {statistics.median(tokens):.0f}.",
        "",
        "| time to first token, ms | median | rounds from | to |",
        "|---|---|---|---|",
        *(_row(name, [[getattr(s, field) for s in samples] for samples in rounds]) for name, field in _ROWS),
    ]
    return "\n".join(lines) + "\n"


_ROWS: Final = (
    ("engine alone, in process", "engine_ms"),
    ("`retrieve`", "retrieve_ms"),
    ("`rag`", "rag_ms"),
    ("`generator`", "generator_ms"),
    ("`rag` beyond `retrieve` and the engine", "rag_added_ms"),
    ("`generator` beyond `retrieve` and the engine", "generator_added_ms"),
)


def _row(name: str, rounds: Sequence[Sequence[float]]) -> str:
    medians = [statistics.median(values) for values in rounds]
    return f"| {name} | {statistics.median(medians):.1f} | {min(medians):.1f} | {max(medians):.1f} |"


if __name__ == "__main__":
    main()
