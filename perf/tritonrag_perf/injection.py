"""How often the server obeys instructions that stand in passages: `python -m tritonrag_perf.injection --url HOST:PORT`.

Each question goes to `generator` with two passages, one that answers it and one that holds an instruction, in all four
combinations of rank and id in turn. The server is measured as it is configured: engine, model and template are its own.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from tritonrag_client.contract import (
    GENERATOR,
    MAX_TOKENS,
    PASSAGE_IDS,
    PASSAGES,
    SCORES,
    TEMPERATURE,
    TEXT_INPUT,
    TEXT_OUTPUT,
    Passage,
)
from tritonrag_client.errors import BadRequestError, UnavailableError, parse_error
from tritonrag_perf.injection_items import InjectionItem, read_injections
from tritonrag_perf.injection_report import Outcome, as_json, counts_by_kind, table
from tritonrag_perf.machine import Machine

_DATATYPES: Final = {np.dtype(np.int64): "INT64", np.dtype(np.int32): "INT32", np.dtype(np.float32): "FP32"}


def main() -> None:
    """Ask every question, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="127.0.0.1:8001", help="HOST:PORT of the server's gRPC")
    parser.add_argument("--passages", type=Path, default=Path("perf/questions/injection.jsonl"), help="the set")
    parser.add_argument(
        "--output", type=Path, help="folder for injection.md and injection.json; left out: only printed"
    )
    parser.add_argument("--label", default="", help="what is measured, for the report: model, engine, template")
    parser.add_argument("--concurrency", type=int, default=4, help="questions under way at once")
    parser.add_argument("--max-tokens", type=int, default=128, help="longest answer")
    parser.add_argument("--timeout-s", type=float, default=120, help="seconds that one answer may take")
    options = parser.parse_args()
    if options.concurrency < 1:
        raise BadRequestError(f"--concurrency is {options.concurrency}; give at least 1")
    outcomes = asyncio.run(
        ask_all(
            options.url,
            read_injections(options.passages),
            concurrency=options.concurrency,
            max_tokens=options.max_tokens,
            timeout_s=options.timeout_s,
        )
    )
    _write(outcomes, options.output, options.label)


async def ask_all(
    url: str, items: Sequence[InjectionItem], *, concurrency: int, max_tokens: int, timeout_s: float
) -> list[Outcome]:
    """An outcome for each item, in order. Raises UnavailableError where no item got an answer."""
    places = asyncio.Semaphore(concurrency)
    async with triton.InferenceServerClient(url) as client:

        async def ask(number: int, item: InjectionItem) -> Outcome:
            async with places:
                return await _ask(client, item, ranked_passages(item, number), max_tokens, timeout_s)

        outcomes = await asyncio.gather(*(ask(number, item) for number, item in enumerate(items)))
    if all(outcome.error for outcome in outcomes):
        raise UnavailableError(f"no question was answered by {url}, the first for: {outcomes[0].error}")
    return outcomes


def ranked_passages(item: InjectionItem, number: int) -> list[tuple[int, Passage]]:
    """Ids and passages, best first. With `number` the injected one takes turns in ranking first and in having the lower id."""
    low_first = number // 2 % 2 == 0
    ranked = [item.injected, item.clean] if number % 2 == 0 else [item.clean, item.injected]
    return list(zip((1, 2) if low_first else (2, 1), ranked, strict=True))


def tensors_of(
    question: str, ranked: Sequence[tuple[int, Passage]], max_tokens: int
) -> dict[str, np.ndarray[Any, Any]]:
    """The request's tensors by name: what the retriever would have given, and sampling that repeats."""
    return {
        TEXT_INPUT: np.array([question.encode()], np.object_),
        PASSAGE_IDS: np.array([passage_id for passage_id, _ in ranked], np.int64),
        SCORES: np.linspace(0.9, 0.8, len(ranked), dtype=np.float32),
        PASSAGES: np.array([passage.to_json() for _, passage in ranked], np.object_),
        MAX_TOKENS: np.array([max_tokens], np.int32),
        TEMPERATURE: np.array([0], np.float32),
    }


async def _ask(
    client: triton.InferenceServerClient,
    item: InjectionItem,
    ranked: Sequence[tuple[int, Passage]],
    max_tokens: int,
    timeout_s: float,
) -> Outcome:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        inputs = [_input(name, array) for name, array in tensors_of(item.question, ranked, max_tokens).items()]
        yield {"model_name": GENERATOR, "inputs": inputs}

    answer = ""
    try:
        async for result, error in client.stream_infer(requests(), stream_timeout=timeout_s):
            if error is not None:
                return Outcome(item=item, answer="", error=_in_words(error))
            answer += "".join(text.decode() for text in result.as_numpy(TEXT_OUTPUT).ravel())
    except InferenceServerException as error:
        return Outcome(item=item, answer="", error=_in_words(error))
    except grpc.aio.AioRpcError as error:  # tritonclient lets the stream's own failures through
        return Outcome(item=item, answer="", error=f"{error.code().name}: {error.details()}")
    return Outcome(item=item, answer=answer)


def _input(name: str, array: np.ndarray[Any, Any]) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), _DATATYPES.get(array.dtype, "BYTES"))
    tensor.set_data_from_numpy(array)
    return tensor


def _in_words(error: InferenceServerException) -> str:
    return str(parse_error(error.message()) or error.message())


def _write(outcomes: Sequence[Outcome], folder: Path | None, label: str) -> None:
    counts = counts_by_kind(outcomes)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        head = f"{label}\n\n" if label else ""
        (folder / "injection.md").write_text(f"{head}{Machine.this()}\n\n{table(counts)}", encoding="utf-8")
        content = json.dumps({"label": label, **as_json(counts, outcomes)}, ensure_ascii=False, indent=1)
        (folder / "injection.json").write_text(content + "\n", encoding="utf-8")
    sys.stdout.write(table(counts))


if __name__ == "__main__":
    main()
