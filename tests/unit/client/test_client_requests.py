"""What both clients send."""

from typing import Any

import pytest
from client_double import ANSWER, ScriptedTriton, Talk, Value, delta, embedding, error, final, says, search

from tritonrag_client import BadRequestError, NotFoundError, Timeouts


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
    }


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
