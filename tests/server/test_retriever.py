"""What comes out of `retriever` is what the index library finds, to the bit: in every mode, for every filter, tenant and batch."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.server.wire import Failure, Wire, request, strings
from tests.waiting import settled
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_backends.index import Index
from tritonrag_backends.index.format import EmbeddingRecord
from tritonrag_backends.index.store import read_current
from tritonrag_backends.settings import EmbedderSettings, RetrieverSettings, Settings
from tritonrag_client import RagClient
from tritonrag_client.contract import Mode
from tritonrag_perf.swap_changes import ChangingIndex
from tritonrag_perf.swap_corpus import Row, make_requests
from tritonrag_perf.swap_oracle import right_tensors

MODES: tuple[Mode, ...] = ("hybrid", "dense", "lexical")
INSTANCES = 2


@pytest.fixture(scope="module")
def made_index(tmp_path_factory: pytest.TempPathFactory, embedder_dir: Path) -> Path:
    """Made-up documents of several tenants, in several segments, some of them deleted, of the real embedder's dimension."""
    embedder = EmbedderManifest.load(embedder_dir, verify=False)
    record = EmbeddingRecord(
        name=embedder.name, fingerprint=embedder.fingerprint, dim=embedder.dim, precision="int8", template="{text}"
    )
    index = ChangingIndex(tmp_path_factory.mktemp("made") / "index", embedder=record, documents=300)
    index.build()
    for step in (index.add, index.delete, index.add):
        step()
    return index.directory


@pytest.fixture(scope="module")
def made_server(made_index: Path, embedder_dir: Path) -> Iterator[RunningServer]:
    """Two instances of the retriever, each told to use all the threads it likes."""
    settings = Settings(
        index=made_index,
        embedder=EmbedderSettings(model=embedder_dir, instances=2),
        retriever=RetrieverSettings(threads=64, instances=INSTANCES),
    )
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(settings=settings))
    assert triton.check_left_behind() == []


@pytest.fixture(scope="module")
def made(made_server: RunningServer) -> Iterator[Wire]:
    connection = Wire(made_server)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def oracle(made_index: Path) -> Index:
    return Index.open(made_index, fingerprint=None)


@pytest.fixture(scope="module")
def requests(oracle: Index) -> list[list[Row]]:
    return make_requests(48, dim=oracle.dim)


def inputs(rows: list[Row]) -> dict[str, Any]:
    """Every input, one row each."""
    texts = {"text_input": "text", "tenant": "tenant", "filter": "filter", "mode": "mode"}
    return {
        "embedding": np.stack([row.embedding for row in rows]),
        "num_passages": np.array([[row.num_passages] for row in rows], np.int32),
        **{
            name: np.array([[getattr(row, attribute).encode()] for row in rows], object)
            for name, attribute in texts.items()
        },
    }


def check(answer: Any, index: Index, rows: list[Row]) -> None:
    assert isinstance(answer, dict), answer
    ids, scores, passages = right_tensors(index, rows)
    assert answer["passage_ids"] == ids.tobytes()
    assert answer["scores"] == scores.tobytes()
    assert strings(answer["passages"]) == passages
    assert np.frombuffer(answer["index_version"], np.int64).tolist() == [index.version] * len(rows)


def test_each_request_is_answered_as_the_library_does(made: Wire, oracle: Index, requests: list[list[Row]]) -> None:
    for rows in requests:
        for _ in ("searched", "known"):
            check(made.unary(request("retriever", inputs(rows))), oracle, rows)


def test_so_it_is_where_triton_batches_requests_of_all_kinds(
    made: Wire, oracle: Index, requests: list[list[Row]]
) -> None:
    messages = [request("retriever", inputs(rows)) for rows in requests]
    for _ in range(3):
        calls = [made.stub.ModelInfer.future(message, timeout=30) for message in messages]
        for rows, call in zip(requests, calls, strict=True):
            answer = {
                output.name: raw
                for output, raw in zip(call.result().outputs, call.result().raw_output_contents, strict=True)
            }
            check(answer, oracle, rows)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wanted", [None, {"lang": "en"}, {"lang": "xx"}])
@pytest.mark.parametrize("tenant", ["", "red", "nobody"])
def test_each_mode_filter_and_tenant_is_honoured(  # noqa: PLR0917 - a table's columns
    made: Wire, oracle: Index, requests: list[list[Row]], mode: Mode, wanted: dict[str, Any] | None, tenant: str
) -> None:
    row = replace(requests[0][0], mode=mode, filter="" if wanted is None else json.dumps(wanted), tenant=tenant)
    check(made.unary(request("retriever", inputs([row]))), oracle, [row])


def test_a_question_that_may_see_nothing_gets_padding_alone(made: Wire, requests: list[list[Row]]) -> None:
    row = replace(requests[0][0], filter='{"lang":"xx"}', num_passages=3)
    answer = made.unary(request("retriever", inputs([row])))
    assert isinstance(answer, dict)
    assert np.frombuffer(answer["passage_ids"], np.int64).tolist() == [-1, -1, -1]
    assert np.frombuffer(answer["scores"], np.float32).tolist() == [0, 0, 0]
    assert strings(answer["passages"]) == [b"", b"", b""]


@pytest.mark.parametrize(
    ("left_out", "mode"),
    [("text_input", "dense"), ("embedding", "lexical"), ("num_passages", "hybrid"), ("tenant", "hybrid")],
)
def test_what_a_mode_does_not_need_may_be_left_out(
    made: Wire, oracle: Index, requests: list[list[Row]], left_out: str, mode: Mode
) -> None:
    row = replace(requests[0][0], mode=mode, tenant="", num_passages=5)
    given = {name: value for name, value in inputs([row]).items() if name != left_out}
    check(made.unary(request("retriever", given)), oracle, [row])


def test_without_a_mode_the_index_decides(made: Wire, oracle: Index, requests: list[list[Row]]) -> None:
    row = replace(requests[0][0], mode=oracle.default_mode)
    for said in (b"", None):
        given = {**inputs([row]), "mode": np.array([[said]], object)}
        if said is None:
            del given["mode"]
        check(made.unary(request("retriever", given)), oracle, [row])


@pytest.mark.parametrize(("left_out", "mode"), [("text_input", "dense"), ("embedding", "lexical")])
def test_without_a_mode_it_searches_by_what_it_has(
    made: Wire, oracle: Index, requests: list[list[Row]], left_out: str, mode: Mode
) -> None:
    row = replace(requests[0][0], mode=mode)
    given = {name: value for name, value in inputs([row]).items() if name not in {left_out, "mode"}}
    check(made.unary(request("retriever", given)), oracle, [row])


def test_only_the_outputs_that_are_asked_for_come(made: Wire, requests: list[list[Row]]) -> None:
    message = request("retriever", inputs(requests[0]))
    message.outputs.add(name="passage_ids")
    answer = made.unary(message)
    assert isinstance(answer, dict)
    assert set(answer) == {"passage_ids"}


@pytest.mark.parametrize("model", ["retriever", "retrieve", "rag", "generator"])
def test_an_unknown_mode_is_refused_by_name_on_every_way(made: Wire, requests: list[list[Row]], model: str) -> None:
    given = inputs([requests[0][0]]) if model == "retriever" else {"text_input": "ba ke li"}
    mode = np.array([[b"Hybrid"]], object) if model == "retriever" else "Hybrid"
    answer = made.ask(request(model, {**given, "mode": mode}))
    assert isinstance(answer, Failure)
    assert "bad_request: mode is 'Hybrid'; use one of hybrid, dense, lexical" in answer.message


@pytest.mark.parametrize(
    ("mode", "left_out", "named"),
    [
        ("lexical", "text_input", "text_input is ''"),
        ("hybrid", "text_input", "text_input is ''"),
        ("dense", "embedding", "embedding is missing"),
        ("hybrid", "embedding", "embedding is missing"),
    ],
)
def test_what_a_mode_needs_is_asked_for(
    made: Wire, requests: list[list[Row]], mode: Mode, left_out: str, named: str
) -> None:
    given = inputs([replace(requests[0][0], mode=mode)])
    del given[left_out]
    answer = made.unary(request("retriever", given))
    assert isinstance(answer, Failure)
    assert answer.status == "INVALID_ARGUMENT"
    assert named in answer.message


def test_neither_a_text_nor_a_vector_is_a_bad_request(made: Wire) -> None:
    answer = made.unary(request("retriever", {"num_passages": 3}))
    assert isinstance(answer, Failure)
    assert "embedding and text_input are missing" in answer.message


def test_one_bad_row_fails_its_request_and_no_other(made: Wire, oracle: Index, requests: list[list[Row]]) -> None:
    rows = requests[0]
    bad = inputs(rows)
    bad["mode"] = np.array([[b"none"]] * len(rows), object)
    messages = [request("retriever", given) for given in (inputs(rows), bad) * 20]
    calls = [made.stub.ModelInfer.future(message, timeout=30) for message in messages]
    assert [call.exception() is None for call in calls] == [True, False] * 20
    check(made.unary(request("retriever", inputs(rows))), oracle, rows)


def test_all_instances_tell_their_version_and_the_questions_are_counted(
    made: Wire, oracle: Index, requests: list[list[Row]]
) -> None:
    row = replace(requests[0][0], mode="lexical", text="never asked before", num_passages=7)
    before = settled(lambda: counts(made))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: made.unary(request("retriever", inputs([row]))), range(100)))
    hits, misses = (after - was for after, was in zip(settled(lambda: counts(made)), before, strict=True))
    assert hits + misses == 100
    assert 1 <= misses <= INSTANCES
    for instance in range(INSTANCES):
        name = f"retriever_0_{instance}"
        assert made.metric("tritonrag_index_version", model_instance=name) == oracle.version
        assert made.metric("tritonrag_index_passages", model_instance=name) == oracle.passage_count


def counts(wire: Wire) -> tuple[float, float]:
    hit, miss = (
        wire.metric("tritonrag_retriever_searches", mode="lexical", cache=result) for result in ("hit", "miss")
    )
    return hit, miss


def test_more_threads_than_cores_are_warned_of(made_server: RunningServer) -> None:
    assert "2 instances of 64 threads each" in made_server.log_path.read_text()


@pytest.mark.parametrize("mode", MODES)
def test_rag_and_generator_give_the_same_answer_in_each_mode(server: RunningServer, mode: Mode) -> None:
    question = "How do I parse a JSON document?"
    with RagClient(server.grpc_url) as generator, RagClient(server.grpc_url, model="rag") as rag:
        answers = [client.ask(question, mode=mode) for client in (generator, rag)]
        found = generator.search(question, mode=mode)
    assert answers[0].text == answers[1].text
    assert answers[0].sources == answers[1].sources
    ids = [passage.passage_id for passage in found.passages]
    assert [source.passage_id for source in answers[0].sources] == ids


@pytest.mark.parametrize("mode", MODES)
def test_retrieve_finds_what_the_library_finds_for_the_embedders_vector(
    server: RunningServer, index_dir: Path, embedder_dir: Path, mode: Mode
) -> None:
    question = "Which function gives the n largest elements of a list?"
    index = Index.open(index_dir, fingerprint=EmbedderManifest.load(embedder_dir, verify=False).fingerprint)
    vector = Encoder.open(embedder_dir, threads=1).encode([question]).vectors[0]
    row = Row(embedding=vector, text=question, num_passages=5, tenant="", filter="", mode=mode)
    ids, _, _ = right_tensors(index, [row])
    with RagClient(server.grpc_url) as client:
        found = client.search(question, mode=mode)
    assert [passage.passage_id for passage in found.passages] == ids[0].tolist()
    assert found.index_version == read_current(index_dir).index_version
