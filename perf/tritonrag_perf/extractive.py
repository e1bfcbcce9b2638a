"""How good the `extractive` engine's answers are and what they cost: `python -m tritonrag_perf.extractive`.

Encoder, index and engine in one process, no Triton. Writes DIR/extractive.md, and every answer to DIR/extractive.jsonl.
Quality does not depend on the machine; a question's time is its least over the rounds, a table shows the mean over questions.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.generation.candidates import words_of
from tritonrag_backends.generation.engine import Prompt, Sampling
from tritonrag_backends.generation.extractive import NO_ANSWER, ExtractiveEngine, ExtractiveOptions
from tritonrag_backends.generation.sources import parse_passages
from tritonrag_backends.index import Index, Query
from tritonrag_client.contract import InputType
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.labelled import Half, LabelledQuestion, read_labelled
from tritonrag_perf.machine import Machine

_HALVES: Final[tuple[Half, ...]] = ("tuning", "held-out")
_CITED_SENTENCE: Final = re.compile(r"(.*) \[(\d+)\]\Z", re.DOTALL)
_STOPS: Final = (".", "!", "?", "…", ".)", '."', "。")
_MAX_TOKENS: Final = 256  # the server's own default


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """Milliseconds that one answer took: finding candidates, embedding `embedded` texts, choosing among them."""

    candidates_ms: float
    embedding_ms: float
    choosing_ms: float
    embedded: int

    @property
    def total_ms(self) -> float:
        """All three."""
        return self.candidates_ms + self.embedding_ms + self.choosing_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One question's answer: (sentence, uri) for each sentence that was given. `reachable`: a passage holds a right answer."""

    label: LabelledQuestion
    sentences: tuple[tuple[str, str], ...]
    reachable: bool
    times: StageTimes

    @property
    def is_right(self) -> bool:
        """Whether the sentences together hold what a right answer must hold."""
        return self.label.is_answered_by(" ".join(text for text, _ in self.sentences))

    @property
    def begins_right(self) -> bool:
        """Whether the first sentence alone is a right answer from a right source."""
        return any(self.label.is_answered_by(text) and uri in self.label.sources for text, uri in self.sentences[:1])

    @property
    def is_rightly_cited(self) -> bool:
        """Whether a sentence of a right source is among them."""
        return any(uri in self.label.sources for _, uri in self.sentences)


class StopWatch:
    """An `embed` for the engine that notes when it was entered and left, and with how many texts."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._entered_s = self._left_s = 0.0
        self._embedded = 0

    async def embed(self, question: str, sentences: Sequence[str]) -> np.ndarray[Any, Any]:
        """Unit vectors FP32 [1 + n, dim], the question's first."""
        self._entered_s, self._embedded = time.perf_counter(), 1 + len(sentences)
        kinds: list[InputType] = ["query"]
        kinds.extend("passage" for _ in sentences)
        vectors = self._encoder.encode([question, *sentences], input_type=kinds).vectors
        self._left_s = time.perf_counter()
        return vectors

    def times(self, began_s: float, ended_s: float) -> StageTimes:
        """The stages of the answer between these two; where nothing was embedded all of it was finding candidates."""
        entered_s, left_s = (self._entered_s, self._left_s) if self._entered_s > began_s else (ended_s, ended_s)
        return StageTimes(
            candidates_ms=(entered_s - began_s) * 1e3,
            embedding_ms=(left_s - entered_s) * 1e3,
            choosing_ms=(ended_s - left_s) * 1e3,
            embedded=self._embedded if entered_s < ended_s else 0,
        )


def main() -> None:
    """Answer every question, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/index"), help="index of the pydoc corpus")
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"), help="embedder folder")
    parser.add_argument("--questions", type=Path, default=Path("perf/questions/pydoc.jsonl"), help="labelled questions")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--num-passages", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=NUMBER", help="constants of ExtractiveOptions")
    options = parser.parse_args()
    constants = read_constants(options.set)
    labels = read_labelled(options.questions)
    encoder = Encoder.open(options.embedder)
    index = Index.open(options.index, fingerprint=encoder.fingerprint, embedder_name=encoder.name)
    prompts = retrieve(labels, encoder, index, options.num_passages)
    results = asyncio.run(answer_all(labels, encoder, prompts, options.rounds, constants))
    options.output.mkdir(parents=True, exist_ok=True)
    table = report(results)
    (options.output / "extractive.md").write_text(f"{Machine.this()}\n\n{table}", encoding="utf-8")
    with (options.output / "extractive.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(_line(result) for result in results)
    sys.stdout.write(table)


def read_constants(settings: Sequence[str]) -> ExtractiveOptions:
    """The engine's own constants but for `settings` (name=number). Raises BadRequestError for what is none of them."""
    defaults = ExtractiveOptions()
    types = {field.name: type(getattr(defaults, field.name)) for field in fields(defaults)}
    changed: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            changed[name] = types[name](value)
        except (KeyError, ValueError):
            raise BadRequestError(f"--set {setting}: give NAME=NUMBER with one of {', '.join(types)}") from None
    return ExtractiveOptions(**changed)


def retrieve(labels: Sequence[LabelledQuestion], encoder: Encoder, index: Index, num_passages: int) -> list[Prompt]:
    """Each question with the passages that the retriever would give it."""
    vectors = encoder.encode([label.question for label in labels]).vectors
    hits = index.search(
        [
            Query(embedding=vector, text=label.question, num_passages=num_passages)
            for label, vector in zip(labels, vectors, strict=True)
        ]
    )
    return [
        Prompt(question=label.question, passages=parse_passages(index.passages(hit.passage_ids)))
        for label, hit in zip(labels, hits, strict=True)
    ]


async def answer_all(
    labels: Sequence[LabelledQuestion],
    encoder: Encoder,
    prompts: Sequence[Prompt],
    rounds: int,
    constants: ExtractiveOptions,
) -> list[Result]:
    """Answer each question `rounds` times, questions interleaved."""
    watch = StopWatch(encoder)
    engine = ExtractiveEngine(watch.embed, constants)
    runs = [[await _answer(engine, watch, prompt) for prompt in prompts] for _ in range(rounds)]
    await engine.close()
    return [
        _result(label, prompt, answers[0][0], min((times for _, times in answers), key=lambda times: times.total_ms))
        for label, prompt, *answers in zip(labels, prompts, *runs, strict=True)
    ]


async def _answer(engine: ExtractiveEngine, watch: StopWatch, prompt: Prompt) -> tuple[list[str], StageTimes]:
    began_s = time.perf_counter()
    texts = [delta.text async for delta in engine.generate(prompt, Sampling(max_tokens=_MAX_TOKENS))]
    return texts, watch.times(began_s, time.perf_counter())


def _result(label: LabelledQuestion, prompt: Prompt, texts: Sequence[str], times: StageTimes) -> Result:
    cited = [] if texts == [NO_ANSWER] else [match for text in texts if (match := _CITED_SENTENCE.match(text.strip()))]
    return Result(
        label=label,
        sentences=tuple((match[1], prompt.passages[int(match[2]) - 1].uri) for match in cited),
        reachable=any(
            passage.uri in label.sources and label.is_answered_by(" ".join(passage.text.split()))
            for passage in prompt.passages
        ),
        times=times,
    )


def report(results: Sequence[Result]) -> str:
    """The table of both halves in Markdown."""
    columns = [figures([result for result in results if result.label.half == half]) for half in _HALVES]
    rows = [f"| {name} | " + " | ".join(column[name] for column in columns) + " |" for name in columns[0]]
    return "\n".join([f"| | {' | '.join(_HALVES)} |", "|---|" + "---|" * len(_HALVES), *rows]) + "\n"


def figures(results: Sequence[Result]) -> dict[str, str]:
    """What is said of a set of answers, by name."""
    answerable = [result for result in results if result.label.answerable]
    unanswerable = [result for result in results if not result.label.answerable]
    answered = [result for result in answerable if result.sentences]
    uris = [(uri, result.label.sources) for result in answered for _, uri in result.sentences]
    texts = [text for result in answered for text, _ in result.sentences]
    return {
        "answerable: a right answer is among the passages": _share([r.reachable for r in answerable]),
        "answerable: answered right": _share([r.is_right for r in answerable]),
        "answerable: answered right by the first sentence": _share([r.begins_right for r in answerable]),
        "answerable: a right source cited": _share([r.is_rightly_cited for r in answerable]),
        "answerable: told there is no answer": _share([not r.sentences for r in answerable]),
        "unanswerable: told there is no answer": _share([not r.sentences for r in unanswerable]),
        "cited sentences that are of a right source": _share([uri in sources for uri, sources in uris]),
        "cited pieces that end as a sentence does": _share([text.endswith(_STOPS) for text in texts]),
        "words in an answer": _mean([len(words_of(" ".join(text for text, _ in r.sentences))) for r in answered]),
        "texts embedded": _mean([r.times.embedded for r in results]),
        "ms finding candidates": _mean([r.times.candidates_ms for r in results], 2),
        "ms embedding": _mean([r.times.embedding_ms for r in results], 2),
        "ms choosing": _mean([r.times.choosing_ms for r in results], 2),
    }


def _share(flags: Sequence[bool]) -> str:
    return f"{sum(flags)} of {len(flags)}"


def _mean(values: Sequence[float], decimals: int = 1) -> str:
    return f"{statistics.fmean(values):.{decimals}f}" if values else "-"


def _line(result: Result) -> str:
    record = {
        "question": result.label.question,
        "half": result.label.half,
        "right": result.is_right if result.label.answerable else not result.sentences,
        "rightly_cited": result.is_rightly_cited,
        "sentences": result.sentences,
        "ms": round(result.times.total_ms, 3),
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
