"""What both clients send."""

import json
from textwrap import dedent
from typing import Any

import pytest
from client_double import ANSWER, BUSY, ScriptedTriton, Talk, Value, delta, embedding, error, final, says, search
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_client import AnswerOptions, BadRequestError, NotFoundError, RagClient, RetryPolicy, Timeouts, Turn
from tritonrag_client._requests import answer_request
from tritonrag_client.contract import decode_history

MODELS = ("generator", "rag")


def test_only_given_options_are_sent(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [ANSWER]
    talk(url, "ask", "Who?", tenant=None)
    assert triton.inputs() == {"text_input": ([1], [b"Who?"])}
    assert triton.requests[0].model_name == "generator"


def test_every_option_is_sent_as_the_contract_says(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [ANSWER]
    options = {"num_passages": 3, "tenant": "blue", "filter": {"lang": "fi\u00e9"}, "max_tokens": 9, "temperature": 0.5}
    more = {
        "mode": "lexical",
        "top_p": 0.25,
        "seed": 2**63,
        "stop_words": ["a", "b"],
        "lora_name": "law",
        "history": [Turn(role="user", content="Hi"), {"role": "assistant", "content": "\u00e9"}],
        "strict": True,
        "request_id": "me",
    }
    talk(url, "stream", "Who?", client={"model": "rag"}, **options, **more)
    assert triton.requests[0].id == "me"
    assert triton.requests[0].model_name == "rag"
    assert triton.inputs() == {
        "text_input": ([1], [b"Who?"]),
        "stream": ([1], [True]),
        "num_passages": ([1], [3]),
        "tenant": ([1], [b"blue"]),
        "filter": ([1], ['{"lang":"fi\u00e9"}'.encode()]),
        "mode": ([1], [b"lexical"]),
        "max_tokens": ([1], [9]),
        "temperature": ([1], [0.5]),
        "top_p": ([1], [0.25]),
        "seed": ([1], [2**63]),
        "stop_words": ([2], [b"a", b"b"]),
        "lora_name": ([1], [b"law"]),
        "history": ([1], ['[{"role":"user","content":"Hi"},{"role":"assistant","content":"\u00e9"}]'.encode()]),
        "strict": ([1], [True]),
    }


def test_texts_to_embed_are_questions_unless_the_caller_says_passages(
    url: str, triton: ScriptedTriton, talk: Talk
) -> None:
    triton.script = [embedding, embedding, embedding]
    talk(url, "embed", ["a", "b"])
    talk(url, "embed", ["a", "b"], input_type="query")
    talk(url, "embed", ["a", "b"], input_type="passage")
    texts = {"text_input": ([2, 1], [b"a", b"b"])}
    assert [triton.inputs(number) for number in range(3)] == [
        texts,
        texts,
        texts | {"input_type": ([2, 1], [b"passage", b"passage"])},
    ]


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(), st.booleans())))
def test_the_server_reads_the_history_that_was_given(turns: list[tuple[Any, str, bool]]) -> None:
    said = [Turn(role=role, content=content) for role, content, _ in turns]
    history = [
        turn if plain else {"role": turn.role, "content": turn.content}
        for turn, (*_, plain) in zip(said, turns, strict=True)
    ]
    request = answer_request("generator", "Who?", "me", {"history": history}, stream=False)
    assert [tensor.name for tensor in request.inputs] == ["text_input", "history"]
    assert decode_history(request.raw_input_contents[1][4:]) == said


def test_the_conversation_in_the_documentation_goes_on(url: str, triton: ScriptedTriton) -> None:
    triton.script = [ANSWER]
    example = (AnswerOptions.__doc__ or "").partition("so far:\n\n")[2]
    with RagClient(url) as client:
        exec(dedent(example), {"client": client, "Turn": Turn})  # noqa: S102 - our own docstring
    assert triton.inputs(0)["history"] == ([1], [b"[]"])
    assert json.loads(triton.inputs(1)["history"][1][0]) == [
        {"role": "user", "content": "What is a closure?"},
        {"role": "assistant", "content": "Hello world [1]"},
    ]


def test_search_repeats_its_options_for_each_row(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [search]
    talk(url, "search", ("a", "b"), num_passages=2, tenant="blue", filter={"n": 1}, mode="hybrid")
    assert triton.inputs() == {
        "text_input": ([2, 1], [b"a", b"b"]),
        "num_passages": ([2, 1], [2, 2]),
        "tenant": ([2, 1], [b"blue", b"blue"]),
        "filter": ([2, 1], [b'{"n":1}'] * 2),
        "mode": ([2, 1], [b"hybrid"] * 2),
    }


def test_the_remaining_time_travels_with_unary_calls(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    left_s: list[float] = []
    triton.script = [lambda request, context: left_s.append(context.time_remaining()) or embedding(request, context)]
    talk(url, "embed", "x", timeouts=Timeouts(connect_s=1, total_s=50))
    assert 0 < triton.requests[0].parameters["timeout"].int64_param <= 50_000_000
    assert 0 < left_s[0] <= 50


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ["ask", "stream"])
def test_the_remaining_time_travels_with_answers(
    url: str, triton: ScriptedTriton, talk: Talk, method: str, model: str
) -> None:
    triton.script = [ANSWER]
    settings = {"model": model, "_chance": talk.chance()}
    talk(url, method, "Who?", client=settings, timeouts=Timeouts(connect_s=1, total_s=50))
    assert triton.requests[0].parameters["timeout"].int64_param == 50_000_000


def test_an_answer_that_is_asked_for_again_tells_the_time_that_is_left_then(
    url: str, triton: ScriptedTriton, talk: Talk
) -> None:
    triton.script = [BUSY, says(error("overloaded: come back later"), final()), ANSWER]
    settings = {"retry": RetryPolicy(base_s=4, max_s=4, jitter=0), "_chance": talk.chance()}
    talk(url, "ask", "Who?", client=settings, timeouts=Timeouts(connect_s=10, total_s=10))
    left_us = [request.parameters["timeout"].int64_param for request in triton.requests]
    assert left_us == [10_000_000, 6_000_000, 2_000_000]


def test_a_stop_bears_no_time_after_which_a_queue_could_drop_it(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [says(final(delta("", finish="cancelled", first=True)))]
    talk(url, "cancel", "me")
    assert "timeout" not in triton.requests[0].parameters


def test_cancel_sends_stop_for_the_id_and_the_tenant(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [says(final(delta("", finish="cancelled", first=True)))]
    talk(url, "cancel", "me", tenant="blue")
    assert (triton.requests[0].id, triton.requests[0].model_name) == ("me", "generator")
    assert triton.inputs() == {"stop": ([1], [True]), "tenant": ([1], [b"blue"])}


def test_cancel_of_what_does_not_run_is_not_found(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [says(error("not_found: no generation runs under the request id 'me'"), final())]
    with pytest.raises(NotFoundError, match="'me'"):
        talk(url, "cancel", "me")


@pytest.mark.parametrize(
    ("method", "argument", "options", "culprit"),
    [
        ("ask", "half \ud800 pair", {}, "text_input holds .* at offset 5"),
        ("ask", 7, {}, "text_input is 7, a int"),
        ("ask", None, {}, "text_input is None"),
        ("ask", "q", {"num_passages": 2**31}, "num_passages is 2147483648, which does not fit in INT32"),
        ("ask", "q", {"num_passages": True}, "num_passages is True"),
        ("ask", "q", {"seed": -1}, "seed is -1, which does not fit in UINT64"),
        ("ask", "q", {"temperature": "hot"}, "temperature is 'hot'"),
        ("ask", "q", {"stop_words": "abc"}, "stop_words is 'abc'; give a sequence"),
        ("ask", "q", {"filter": "lang"}, "filter is 'lang'; give a mapping"),
        ("ask", "q", {"filter": {"a": {1}}}, "filter can't be written as JSON"),
        ("ask", "q", {"filter": {"a": float("nan")}}, "filter can't be written as JSON"),
        ("ask", "q", {"strict": 1}, "strict is 1; give a bool"),
        ("ask", "q", {"history": "Hi"}, "history is 'Hi'; give a sequence of Turn"),
        ("ask", "q", {"history": {"role": "user", "content": "Hi"}}, "give a sequence of Turn"),
        ("ask", "q", {"history": ["Hi"]}, r"element 0 is not .*; give Turn\("),
        ("ask", "q", {"history": [Turn(role="user", content="Hi"), Turn(role="user", content=5)]}, "element 1 is not"),  # type: ignore[arg-type]
        ("ask", "q", {"history": [{"role": "user"}]}, "element 0 is not"),
        ("ask", "q", {"history": [{"role": "user", "content": "", "name": "x"}]}, "element 0 is not"),
        (
            "ask",
            "q",
            {"history": [{"role": "system", "content": "Obey"}]},
            "element 0 is 'system', not user or assistant",
        ),
        ("ask", "q", {"history": [{"role": "user", "content": {1}}]}, "history is no conversation"),
        ("ask", "q", {"history": [{"role": "user", "content": "\ud800"}]}, r"history holds '\\ud800'"),
        ("search", "q", {"history": []}, "unknown option history"),
        ("ask", "q", {"colour": "red"}, "unknown option colour"),
        ("ask", "q", {"timeouts": 5}, "timeouts is 5"),
        ("ask", "q", {"request_id": 5}, "request_id is 5"),
        ("search", "q", {"mode": 1}, "mode is 1, a int"),
        ("search", "q", {"max_tokens": 5}, "unknown option max_tokens"),
        ("search", ["a", b"b"], {}, "text_input is b'b'"),
        ("search", 7, {}, "question is 7; give a sequence"),
        ("embed", b"bytes", {}, "texts is b'bytes'"),
        ("cancel", "", {}, "request_id is ''"),
    ],
)
def test_what_can_not_be_sent_is_refused_by_name(  # noqa: PLR0917 - a table's columns
    url: str, triton: ScriptedTriton, talk: Talk, method: str, argument: Value, options: dict[str, Any], culprit: str
) -> None:
    with pytest.raises(BadRequestError, match=culprit):
        talk(url, method, argument, **options)
    assert triton.requests == []
