"""What a request costs on a real Triton: which models run, how often, over how many tokens. Counted, never timed."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from tests.server.wire import Failure, Wire, request
from tests.waiting import settled, wait_until
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.generation.extractive import ExtractiveOptions
from tritonrag_backends.settings import Settings
from tritonrag_client.contract import EMBEDDER, GENERATOR, RAG, RETRIEVE, RETRIEVER
from tritonrag_perf.corpus import questions_of_index
from tritonrag_perf.server_time import ServerStatistics

MODELS = (EMBEDDER, RETRIEVER, GENERATOR, RETRIEVE, RAG)
CLIENTS, LOAD = 16, 128

T = TypeVar("T")


@pytest.fixture(scope="module")
def questions(settings: Settings) -> Iterator[str]:
    """Questions of mixed lengths, each to be asked once: what the server knows already costs nothing."""
    drawn = questions_of_index(settings.index, count=2 * LOAD, seed=23).texts
    return iter([f"{question} Please." for question in drawn])  # nor do they come in other tests


@pytest.fixture
def statistics(wire: Wire) -> Iterator[ServerStatistics]:
    with ServerStatistics(wire.server.grpc_url, headers=wire.server.admin_headers) as reader:
        yield reader


def added_by(call: Callable[[], object], read: Callable[[], Mapping[str, int]], expected: Mapping[str, int]) -> dict:
    """What a call added to counters, without those that it left as they were. `expected` is waited for, but not required."""
    before = settled(read)

    def added() -> dict[str, int]:
        return {name: count - before[name] for name, count in read().items() if count != before[name]}

    call()
    wait_until(lambda: expected.items() <= added().items(), deadline_s=10)
    return settled(added)


def runs(statistics: ServerStatistics) -> dict[str, int]:
    """How often each model was executed, and under "rows of" it how many questions or texts that were."""
    counters = statistics.counters(MODELS)
    rows = {f"rows of {name}": counted.inferences for name, counted in counters.items()}
    return {name: counted.executions for name, counted in counters.items()} | rows


def questions_and_tokens(wire: Wire) -> dict[str, int]:
    """Questions searched (miss) and known or there already (hit), and tokens embedded, real and computed."""
    searches = {cache: int(wire.metric("tritonrag_retriever_searches", cache=cache)) for cache in ("miss", "hit")}
    tokens = {kind: int(wire.metric("tritonrag_embedder_tokens", kind=kind)) for kind in ("real", "computed")}
    return searches | tokens


def tokens_of(embedder: Path, texts: list[str]) -> int:
    return sum(map(len, Encoder.open(embedder).tokenize(texts).ids))


def ask(wire: Wire, model: str, *texts: str) -> None:
    """One request; more than one text only for a model that batches."""
    batch = np.array([[text.encode()] for text in texts], object)
    answer = wire.ask(request(model, {"text_input": batch if model == RETRIEVE else texts[0]}))
    assert not isinstance(answer, Failure), answer


@pytest.mark.parametrize(
    ("model", "needed"),
    [
        (RETRIEVE, {RETRIEVE}),
        (RAG, {RAG, RETRIEVE, GENERATOR, EMBEDDER}),  # the embedder for choosing what to quote
        (GENERATOR, {RETRIEVE, GENERATOR, EMBEDDER}),
    ],
)
def test_a_request_runs_each_model_that_it_needs_once_and_no_other(
    wire: Wire, statistics: ServerStatistics, questions: Iterator[str], model: str, needed: set[str]
) -> None:
    expected = dict.fromkeys(needed, 3)
    added = added_by(lambda: [ask(wire, model, next(questions)) for _ in range(3)], lambda: runs(statistics), expected)
    assert {name: added[name] for name in added if name in MODELS} == expected
    assert added["rows of retrieve"] == 3
    assert added.get("rows of embedder", 0) <= 3 * (1 + ExtractiveOptions().max_candidates)


def test_32_questions_in_a_request_are_one_execution(
    wire: Wire, statistics: ServerStatistics, questions: Iterator[str]
) -> None:
    expected = {"retrieve": 1, "rows of retrieve": 32}
    texts = [next(questions) for _ in range(32)]
    assert added_by(lambda: ask(wire, RETRIEVE, *texts), lambda: runs(statistics), expected) == expected


def test_a_question_that_comes_twice_in_a_request_is_embedded_and_searched_once(
    wire: Wire, embedder_dir: Path, questions: Iterator[str]
) -> None:
    texts = [next(questions) for _ in range(8)]
    expected = {"miss": 8, "hit": 8, "real": tokens_of(embedder_dir, texts)}
    added = added_by(
        lambda: ask(wire, RETRIEVE, *texts, *reversed(texts)), lambda: questions_and_tokens(wire), expected
    )
    assert {name: added.get(name, 0) for name in expected} == expected


def test_questions_that_come_at_once_compute_at_most_a_tenth_more_tokens_than_they_hold(
    wire: Wire, embedder_dir: Path, questions: Iterator[str]
) -> None:
    texts = [next(questions) for _ in range(LOAD)]

    def load() -> None:
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(lambda text: ask(wire, RETRIEVE, text), texts))

    expected = {"miss": LOAD, "real": tokens_of(embedder_dir, texts)}
    added = added_by(load, lambda: questions_and_tokens(wire), expected)
    computed = added.pop("computed")
    assert added == expected
    assert expected["real"] <= computed <= 1.10 * expected["real"]
