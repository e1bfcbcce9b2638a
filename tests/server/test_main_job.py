"""The main job: question in, streamed and cited answer out, the same on every way in."""

import json
import re
from typing import Any

import pytest

from tests.server.wire import Wire, request, strings
from tests.waiting import settled
from tritonrag.launcher import RunningServer
from tritonrag_client import AsyncRagClient, RagClient
from tritonrag_client.contract import decode_sources

QUESTIONS = (
    "How do I parse a JSON document?",
    "How can I read rows from a CSV file as dictionaries?",
    "Which function gives the n largest elements of a list?",
)


def text_of(outputs: Any) -> str:
    return strings(outputs["text_output"])[0].decode()


@pytest.mark.parametrize("question", QUESTIONS)
async def test_every_way_in_gives_the_same_answer_and_sources(wire: Wire, server: RunningServer, question: str) -> None:
    answers: dict[str, tuple[str, str]] = {}
    for model in ("rag", "generator"):
        (whole,) = wire.stream(request(model, {"text_input": question}))
        answers[f"{model}, one response"] = (text_of(whole), strings(whole["sources"])[0].decode())
        deltas = wire.stream(request(model, {"text_input": question, "stream": True}))
        answers[f"{model}, streamed"] = ("".join(map(text_of, deltas)), strings(deltas[0]["sources"])[0].decode())
    status, body = wire.post("/v2/models/rag/generate", {"text_input": question})
    assert status == 200
    answers["generate"] = (json.loads(body)["text_output"], json.loads(body)["sources"])
    answers["generate_stream"] = generate_stream(wire, question)
    with RagClient(server.grpc_url) as client:
        answers["RagClient.ask"] = plain(client.ask(question))
        answers["RagClient.stream"] = joined(list(client.stream(question)))
    with RagClient(server.grpc_url, model="rag") as client:
        answers["RagClient on rag"] = plain(client.ask(question))
    async with AsyncRagClient(server.grpc_url) as aclient:
        answers["AsyncRagClient.ask"] = plain(await aclient.ask(question))
        answers["AsyncRagClient.stream"] = joined([delta async for delta in aclient.stream(question)])
    texts = {text for text, _ in answers.values()}
    sources = {json.dumps([source.to_dict() for source in decode_sources(raw)]) for _, raw in answers.values()}
    assert len(texts) == 1, answers
    assert len(sources) == 1, answers


def generate_stream(wire: Wire, question: str) -> tuple[str, str]:
    status, body = wire.post("/v2/models/rag/generate_stream", {"text_input": question, "stream": True})
    assert status == 200
    events = [
        json.loads(line.removeprefix("data: ")) for line in body.decode().splitlines() if line.startswith("data: ")
    ]
    return "".join(event["text_output"] for event in events), events[0]["sources"]


def plain(answer: Any) -> tuple[str, str]:
    return answer.text, json.dumps([source.to_dict() for source in answer.sources])


def joined(deltas: list[Any]) -> tuple[str, str]:
    return "".join(delta.text for delta in deltas), json.dumps([source.to_dict() for source in deltas[0].sources])


def test_an_answer_cites_the_passage_that_holds_it(server: RunningServer) -> None:
    with RagClient(server.grpc_url) as client:
        answer = client.ask("Which function gives the n largest elements of a list?")
    cited = {int(number) for number in re.findall(r"\[(\d+)\]", answer.text)}
    assert cited <= {source.n for source in answer.sources}
    assert "largest" in answer.text
    assert any("heapq" in source.passage.title for source in answer.cited)
    assert answer.finish_reason == "stop"
    assert answer.degraded == ""


def test_every_cited_sentence_stands_in_its_source(server: RunningServer) -> None:
    with RagClient(server.grpc_url) as client:
        for question in QUESTIONS:
            answer = client.ask(question)
            texts = {source.n: " ".join(source.passage.text.split()) for source in answer.sources}
            pieces = re.findall(r"(.*?) \[(\d+)\](?: |$)", answer.text)
            assert pieces
            for sentence, number in pieces:
                assert sentence in texts[int(number)]


def test_sources_come_with_the_first_response_and_only_there(wire: Wire) -> None:
    deltas = wire.stream(request("rag", {"text_input": QUESTIONS[0], "stream": True}))
    assert decode_sources(strings(deltas[0]["sources"])[0])
    assert [strings(delta["sources"])[0] for delta in deltas[1:]] == [b""] * (len(deltas) - 1)
    assert [strings(delta["finish_reason"])[0] for delta in deltas] == [b""] * (len(deltas) - 1) + [b"stop"]


@pytest.mark.parametrize(
    "question", ["Who won the football match yesterday?", "What does a litre of milk cost in Lisbon?"]
)
def test_a_question_that_the_passages_do_not_answer_is_told_so(server: RunningServer, question: str) -> None:
    with RagClient(server.grpc_url) as client:
        answer = client.ask(question)
    assert answer.text == "The passages hold no answer to this question."
    assert answer.cited == ()


@pytest.mark.parametrize("max_tokens", [1, 3, 7])
def test_max_tokens_ends_the_answer_early_and_says_so(server: RunningServer, max_tokens: int) -> None:
    with RagClient(server.grpc_url) as client:
        whole = client.ask(QUESTIONS[0])
        short = client.ask(QUESTIONS[0], max_tokens=max_tokens)
    words = re.sub(r" \[\d+\]", "", short.text).split()
    assert len(words) == max_tokens
    assert words == whole.text.split()[:max_tokens]
    assert short.finish_reason == "length"


def test_a_stop_word_ends_the_answer_before_it(server: RunningServer) -> None:
    with RagClient(server.grpc_url) as client:
        whole = client.ask(QUESTIONS[0]).text
        word = whole.split()[3]
        assert client.ask(QUESTIONS[0], stop_words=(word,)).text == whole[: whole.index(word)]


@pytest.mark.parametrize("count", [1, 3, 17, 100])
def test_num_passages_is_what_comes_back(server: RunningServer, count: int) -> None:
    with RagClient(server.grpc_url) as client:
        (result,) = client.search([QUESTIONS[0]], num_passages=count)
        scores = [passage.score for passage in result.passages]
        assert len(scores) == count
        assert scores == sorted(scores, reverse=True)
        assert len(client.ask(QUESTIONS[0], num_passages=count).sources) == count


def test_a_batch_of_questions_equals_each_by_itself(server: RunningServer) -> None:
    with RagClient(server.grpc_url) as client:
        together = client.search(list(QUESTIONS), num_passages=4)
        alone = [client.search(question, num_passages=4) for question in QUESTIONS]
    for batched, single in zip(together, alone, strict=True):
        assert [p.passage_id for p in batched.passages] == [p.passage_id for p in single.passages]
        assert [p.score for p in batched.passages] == pytest.approx([p.score for p in single.passages], abs=2e-2)


def test_a_citation_leads_back_to_the_characters_of_its_document(server: RunningServer, documents: list[Any]) -> None:
    texts = {document.uri: document.text for document in documents}
    with RagClient(server.grpc_url) as client:
        for question in QUESTIONS:
            for source in client.ask(question).sources:
                passage = source.passage
                assert texts[passage.uri][passage.start : passage.end] == passage.text


def test_any_tenant_sees_passages_that_belong_to_none(server: RunningServer) -> None:
    with RagClient(server.grpc_url) as client:
        assert client.search(QUESTIONS[0], tenant="blue") == client.search(QUESTIONS[0])


def test_health_names_every_model(server: RunningServer) -> None:
    with RagClient(server.grpc_url) as client:
        health = client.health()
    assert health.live
    assert health.ready
    assert set(health.models) == {"embedder", "retriever", "generator", "retrieve", "rag"}
    assert all(health.models.values())


def test_the_stages_own_metrics_are_scraped_beside_tritons(wire: Wire) -> None:
    wire.unary(request("embedder", {"text_input": "one two three"}))
    real, computed = settled(
        lambda: [wire.metric("tritonrag_embedder_tokens", kind=kind) for kind in ("real", "computed")]
    )
    assert 0 < real <= computed
    assert wire.metric("nv_inference_request_success", model="embedder") > 0
