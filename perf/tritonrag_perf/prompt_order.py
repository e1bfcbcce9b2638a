"""Answers with the passages in canonical order and by rank: `python -m tritonrag_perf.prompt_order`.

    python -m tritonrag_perf.prompt_order --output DIR [--questions FILE ... --index DIR ...] [--questions-limit 60]

Each question is searched once, and answered twice by the language model that `make llm` installs, from the same passages: with
TRITONRAG_PROMPT_ORDER=canonical and with rank. Encoder, index and engine are in this process, no Triton; prompts, citations and
engine are the server's. `--questions` takes labelled questions (`.jsonl`, `.tsv` or a BEIR folder; perf/questions/README.md), and
`--index` an index for each. Writes DIR/NAME.json anew after each question, and DIR/NAME.md at
the end.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.generation.answering import Answering, AnswerJob
from tritonrag_backends.generation.engine import Sampling
from tritonrag_backends.generation.genai.folder import ModelFolder
from tritonrag_backends.generation.opening import open_answering
from tritonrag_backends.generation.sources import parse_passages
from tritonrag_backends.generation.trail import AnswerTrail
from tritonrag_backends.index import Index, Query
from tritonrag_backends.settings import Settings, load_settings
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_perf.document_lookup import DocumentLookup
from tritonrag_perf.extractive import StopWatch
from tritonrag_perf.labelled import read_labelled
from tritonrag_perf.machine import Machine
from tritonrag_perf.prompt_order_measures import Answer, Asked
from tritonrag_perf.prompt_order_report import ORDERS, Order, OrderRecord, Sample, write_order_data, write_order_page
from tritonrag_perf.question_file import read_questions_with_answers
from tritonrag_perf.question_matching import match

_ENGINE: Final = "onnxruntime_genai"
_FENCE_KEY: Final = "prompt-order"  # the same fences in both orders and in every run
_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A question of either kind of file. `documents` are those of the index that answer it, by their ids there.

    `answerable`: the labels name a document. `patterns` are what a right answer matches, where anybody wrote that down.
    """

    text: str
    split: str
    documents: frozenset[str]
    answerable: bool = True
    patterns: tuple[str, ...] = ()


class Bench:
    """Asks the language model in both orders. Each order has an engine of its own, as two servers would."""

    def __init__(self, answerings: Mapping[Order, Answering], *, max_tokens: int) -> None:
        self._answerings, self._sampling = answerings, Sampling(max_tokens=max_tokens, temperature=0.0)

    async def sample(self, asked: Asked, passages: Sequence[Passage]) -> Sample:
        """Answer a question from its passages in both orders, one after the other."""
        return Sample.of(asked, {order: await self._answer(order, asked, passages) for order in ORDERS})

    async def close(self) -> None:
        """End the language models."""
        for answering in self._answerings.values():
            await answering.close()

    async def _answer(self, order: Order, asked: Asked, passages: Sequence[Passage]) -> Answer:
        job = AnswerJob(
            question=asked.question,
            passages=tuple(passages),
            passage_ids=asked.passage_ids,
            index_version=None,
            sampling=self._sampling,
            strict=True,  # an answer that the model did not write, or not from all passages, tells nothing
        )
        trail, began_s = AnswerTrail(engine=_ENGINE), time.perf_counter()
        text, reason = "", ""
        try:
            async with aclosing(self._answerings[order].answer(job, trail)) as deltas:
                async for delta in deltas:
                    text, reason = text + delta.text, delta.finish_reason or ""
        except RagError as error:
            return Answer(failure=f"{error.code}: {error.message}")
        return Answer(
            text=text,
            first=first_source(order, asked.passage_ids),
            finish_reason=reason,
            seconds=time.perf_counter() - began_s,
            prompt_tokens=trail.usage.prompt_tokens if trail.usage else 0,
            completion_tokens=trail.usage.completion_tokens if trail.usage else 0,
        )


def main() -> None:
    """Search, answer, write the record."""
    options = _parser().parse_args()
    if len(options.questions) != len(options.index):
        raise BadRequestError(
            f"--questions has {len(options.questions)} files and --index {len(options.index)}; give as many"
        )
    encoder = Encoder.open(options.embedder)
    work = [
        one
        for questions, index in zip(options.questions, options.index, strict=True)
        for one in retrieve(questions, index, encoder, passages=options.num_passages, limit=options.questions_limit)
    ]
    settings = {order: _settings(order, options.generator_model) for order in ORDERS}
    bench = Bench(
        {order: open_answering(each, StopWatch(encoder).embed) for order, each in settings.items()},
        max_tokens=options.max_tokens,
    )
    asyncio.run(_measure(bench, work, options))


async def _measure(bench: Bench, work: Sequence[tuple[Asked, Sequence[Passage]]], options: argparse.Namespace) -> None:
    samples = list[Sample]()
    try:
        for number, (asked, passages) in enumerate(work, start=1):
            samples.append(await bench.sample(asked, passages))
            write_order_data(_record(options, samples), options.output, options.name)
            took = ", ".join(f"{order} {answer.seconds:.1f} s" for order, answer in samples[-1].answers.items())
            print(f"{number} of {len(work)}: {took}", file=sys.stderr)  # noqa: T201 - progress
    finally:  # what was answered before somebody lost patience is worth a page too
        await bench.close()
        print(write_order_page(_record(options, samples), options.output, options.name))  # noqa: T201 - a command's result


def retrieve(
    questions: Path, index: Path, encoder: Encoder, *, passages: int, limit: int
) -> Iterator[tuple[Asked, Sequence[Passage]]]:
    """Up to `limit` questions (0: all), drawn evenly at random, each with what the server would find for it."""
    opened = Index.open(index, fingerprint=encoder.fingerprint, embedder_name=encoder.name)
    labels = drawn(read_labels(questions, opened.document_ids()), limit)
    vectors = encoder.encode([label.text for label in labels]).vectors
    queries = [
        Query(embedding=vector, text=label.text, num_passages=passages)
        for label, vector in zip(labels, vectors, strict=True)
    ]
    for label, hits in zip(labels, opened.search(queries), strict=True):
        found = parse_passages(opened.passages(hits.passage_ids))
        documents = enumerate(opened.documents_of(hits.passage_ids), start=1)
        yield (
            Asked(
                questions=questions.name,
                question=label.text,
                split=label.split,
                answerable=label.answerable,
                patterns=label.patterns,
                passages=tuple(passage.text for passage in found),
                passage_ids=tuple(hits.passage_ids.tolist()),
                relevant=tuple(source for source, document in documents if document in label.documents),
            ),
            found,
        )


def read_labels(path: Path, documents: Sequence[str]) -> list[Labelled]:
    """The questions of a file, held against the documents of an index. Raises BadRequestError as the files' own readers do."""
    lookup = DocumentLookup(documents)
    if path.suffix != ".jsonl":
        return [
            Labelled(text=one.question.text, split=one.question.split, documents=frozenset(one.stands_for))
            for one in match(read_questions_with_answers(path), lookup).questions
        ]
    return [
        Labelled(
            text=label.question,
            split=label.half,
            documents=frozenset(document for source in label.sources for document in lookup.find(source)),
            answerable=label.answerable,
            patterns=tuple(pattern.pattern for pattern in label.answer),
        )
        for label in read_labelled(path)
    ]


def drawn(labels: Sequence[Labelled], limit: int) -> list[Labelled]:
    """`limit` of them (0: all) in their order, the same each time."""
    if limit < 0:
        raise BadRequestError(f"--questions-limit is {limit}; give 0 for all, or a number of questions")
    if not 0 < limit < len(labels):
        return list(labels)
    chosen = random.Random(_SEED).sample(range(len(labels)), limit)  # noqa: S311 - a draw, no secret
    return [labels[number] for number in sorted(chosen)]


def first_source(order: Order, passage_ids: Sequence[int]) -> int:
    """The number of the source that stands first in the prompt; 0 where there is none."""
    sources = range(1, len(passage_ids) + 1)
    return min(sources, key=lambda n: passage_ids[n - 1] if order == "canonical" else n, default=0)


def _settings(order: Order, model: Path) -> Settings:
    return load_settings(
        {
            "TRITONRAG_GENERATOR_ENGINE": _ENGINE,
            "TRITONRAG_GENAI_MODEL": str(model),
            "TRITONRAG_PROMPT_ORDER": order,
            "TRITONRAG_PROMPT_FENCE_KEY": _FENCE_KEY,
        }
    )


def _record(options: argparse.Namespace, samples: Sequence[Sample]) -> OrderRecord:
    return OrderRecord(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        command=_command(options),
        model=ModelFolder.read(options.generator_model, verify=False).name,
        num_passages=options.num_passages,
        max_tokens=options.max_tokens,
        samples=tuple(samples),
    )


def _command(options: argparse.Namespace) -> str:
    """How to do it again, without the paths of one machine."""
    names = " ".join(path.name for path in options.questions)
    dirs = " ".join(["DIR"] * len(options.index))
    return (
        f"python -m tritonrag_perf.prompt_order --questions {names} --index {dirs} --questions-limit {options.questions_limit}"
        f" --num-passages {options.num_passages} --max-tokens {options.max_tokens} --output DIR"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.prompt_order", description=__doc__)
    parser.add_argument("--questions", type=Path, nargs="+", default=[Path("perf/questions/pydoc.jsonl")])
    parser.add_argument("--index", type=Path, nargs="+", default=[Path(".tritonrag/demo-index")], help="one a file")
    parser.add_argument("--questions-limit", type=int, default=60, help="questions of each file; 0: all")
    parser.add_argument("--num-passages", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--generator-model", type=Path, default=Path(".tritonrag/generator"))
    parser.add_argument("--name", default="prompt-order")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    return parser


if __name__ == "__main__":
    main()
