"""Texts and vectors at the edge of what they are: a right answer or an error that names them, never a crash, never NaN."""

import json
from typing import Any, Final

import numpy as np
import pytest

from tests.faults.hostile import DEADLINE_S, QUESTION, Known, leak_of, require_sound
from tests.server.wire import Failure, Wire, request, strings
from tritonrag_backends.settings import LimitSettings
from tritonrag_client.contract import decode_sources
from tritonrag_client.errors import RagError, parse_error

TEXT_MODELS: Final = ("embedder", "retrieve", "rag", "generator")
SEARCH_MODELS: Final = ("retrieve", "rag", "generator")
ANSWER_MODELS: Final = ("rag", "generator")

FINE: Final = {
    "right to left": "\u05d0\u05d9\u05da \u05e7\u05d5\u05e8\u05d0\u05d9\u05dd JSON\u061f",
    "overridden direction": "\u202eNOSJ esrap I od woH\u202c",
    "combining": "J\u0308\u0301\u0316S\u0334O\u20ddN " + "e" + "\u0301" * 500,
    "emoji": "\U0001f469\u200d\U0001f680 \U0001f3f3\ufe0f\u200d\U0001f308 parse? " * 20,
    "zero width alone": "\u200b\u200d\ufeff",
    "non-characters": "\uffff\ufffe\U0010ffff",
    "private use": "\ue000\uf8ff",
    "control characters": "".join(map(chr, (*range(1, 9), *range(14, 32), 127, 128, 159))) + "JSON",
    "separators of lines": "JSON\u2028parse\u2029me\x0b\x0c\x85",
    "a very long word": "x" * 32_768,
    "a long word of emoji": "\U0001f600" * 8_000,
    "many lines": "\n" * 10_000 + "JSON",
    "punctuation alone": "?!" * 5_000,
    "digits alone": "7" * 5_000,
    "a text like a path": "../../etc/passwd",
    "a text like a template": "{{ 7 * 7 }} {% raw %} ${x} %s %n \\x00",
    "a text like JSON": '{"text_input": "a"}',
    "a text like a special token": "[CLS] [SEP] [MASK] </s> <|assistant|>",
    "a letter": "J",
}
REFUSED: Final[dict[str, tuple[bytes, str]]] = {
    "empty": (b"", "text_input is ''"),
    "blank": (" \t\u3000\u2003\n".encode(), "text_input is ' "),
    "NUL": (b"JSON\0parse", "NUL character at offset 4"),
    "NUL at the end": (b"JSON\0", "NUL character at offset 4"),
    "a lone surrogate": (b"JSON \xed\xa0\x80", "byte 0xed at offset 5"),
    "a pair of surrogates": (b"\xed\xa0\xbd\xed\xb8\x80", "byte 0xed at offset 0"),
    "an overlong slash": (b"\xc0\xaf", "byte 0xc0 at offset 0"),
    "UTF-16": ("JSON".encode("utf-16"), "byte 0xff at offset 0"),
    "a code point too high": (b"\xf4\x90\x80\x80", "byte 0xf4 at offset 0"),
    "a character cut off": (b"JSON \xe2\x82", "byte 0xe2 at offset 5"),
    "a megabyte": (b"x" * 2**20, "1048576 bytes; send at most 32768"),
    "a megabyte of emoji": ("\U0001f600".encode() * 2**18, "1048576 bytes; send at most 32768"),
}


def error_of(wire: Wire, message: Any) -> RagError:
    """The error of ours that a request gets. Fails for an answer, and for an error that tells too much or is nobody's fault."""
    answer = wire.ask(message)
    assert isinstance(answer, Failure), answer
    error = parse_error(answer.message)
    assert error is not None, answer
    assert not leak_of(answer), answer
    assert len(answer.message) < 2_000, len(answer.message)
    return error


def answer_of(wire: Wire, message: Any) -> dict[str, bytes]:
    answer = wire.ask(message)
    assert isinstance(answer, dict), answer
    require_sound(answer)
    return answer


@pytest.mark.parametrize("case", FINE)
@pytest.mark.parametrize("model", TEXT_MODELS)
def test_an_odd_question_is_answered_and_again_alike(wire: Wire, model: str, case: str) -> None:
    first, again = (answer_of(wire, request(model, {"text_input": FINE[case]})) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("case", FINE)
@pytest.mark.parametrize("mode", ["lexical", "dense", "hybrid"])
def test_an_odd_question_is_searched_for_in_every_mode(wire: Wire, mode: str, case: str) -> None:
    found = answer_of(wire, request("retrieve", {"text_input": FINE[case], "mode": mode, "num_passages": 100}))
    scores = np.frombuffer(found["scores"], np.float32)
    ids = np.frombuffer(found["passage_ids"], np.int64)
    kept = ids >= 0
    assert (np.diff(scores[kept]) <= 1e-6).all()
    assert (scores[~kept] == 0).all()
    assert len(set(ids[kept].tolist())) == kept.sum()


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("model", TEXT_MODELS)
def test_what_is_no_text_is_refused_by_what_is_wrong_with_it(wire: Wire, model: str, case: str) -> None:
    data, named = REFUSED[case]
    error = error_of(wire, request(model, {"text_input": data}))
    assert error.code == "bad_request"
    assert named in error.message


def test_one_odd_text_in_a_batch_is_refused_alone(wire: Wire) -> None:
    texts = [*FINE.values(), *(data for data, _ in REFUSED.values())]
    calls = [wire.stub.ModelInfer.future(request("embedder", {"text_input": text}), timeout=60) for text in texts]
    outcomes = [call.exception() is None for call in calls]
    assert outcomes == [True] * len(FINE) + [False] * len(REFUSED)


def ids_of(answer: dict[str, bytes]) -> list[int]:
    """The passages that an answer rests on."""
    if "passage_ids" in answer:
        return np.frombuffer(answer["passage_ids"], np.int64).tolist()
    (sources,) = strings(answer["sources"])
    return [source.passage_id for source in decode_sources(sources)]


@pytest.mark.parametrize("case", FINE)
@pytest.mark.parametrize("model", SEARCH_MODELS)
def test_an_odd_tenant_sees_what_belongs_to_nobody(wire: Wire, model: str, case: str) -> None:
    odd = answer_of(wire, request(model, {"text_input": QUESTION, "tenant": FINE[case]}))
    assert ids_of(odd) == ids_of(answer_of(wire, request(model, {"text_input": QUESTION})))


@pytest.mark.parametrize("name", ["tenant", "filter", "mode", "history", "lora_name", "stop_words"])
@pytest.mark.parametrize("case", [case for case in REFUSED if case not in {"empty", "blank"}])
@pytest.mark.parametrize("model", ANSWER_MODELS)
def test_what_is_no_text_is_refused_in_every_input(wire: Wire, model: str, name: str, case: str) -> None:
    data, named = REFUSED[case]
    error = error_of(wire, request(model, {"text_input": QUESTION, name: data}))
    assert error.code == "bad_request"
    assert name in error.message
    if not case.startswith("a megabyte"):
        assert named in error.message


@pytest.mark.parametrize("case", FINE)
@pytest.mark.parametrize("name", ["filter", "mode", "history", "lora_name"])
def test_an_odd_option_is_refused_by_its_name(wire: Wire, name: str, case: str) -> None:
    error = error_of(wire, request("generator", {"text_input": QUESTION, name: FINE[case]}))
    assert error.code == "bad_request"
    assert name in error.message


@pytest.mark.parametrize("case", FINE)
def test_an_odd_value_in_a_filter_is_refused_with_the_field_that_is_not_there(wire: Wire, case: str) -> None:
    for wanted in ({"author": FINE[case]}, {FINE[case]: 1}):
        error = error_of(wire, request("retrieve", {"text_input": QUESTION, "filter": json.dumps(wanted)}))
        assert error.code == "bad_request"
        assert "filter" in error.message


SURROGATE: Final = '"\\ud800"'


@pytest.mark.parametrize(
    "wanted",
    [f'{{"a":{SURROGATE}}}', f"{{{SURROGATE}:1}}", f'{{"a":{{"in":[{SURROGATE}]}}}}', '{"a":1e999}', '{"a":NaN}'],
)
def test_a_filter_of_what_json_can_write_and_text_can_not_is_refused(wire: Wire, wanted: str) -> None:
    error = error_of(wire, request("retrieve", {"text_input": QUESTION, "filter": wanted}))
    assert error.code == "bad_request"
    assert "filter" in error.message


@pytest.mark.parametrize("case", FINE)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_odd_things_may_have_been_said_before(wire: Wire, role: str, case: str) -> None:
    history = json.dumps([{"role": role, "content": FINE[case]}], ensure_ascii=False)
    answer = answer_of(wire, request("generator", {"text_input": QUESTION, "history": history}))
    assert strings(answer["text_output"]) != [b""]


@pytest.mark.parametrize(
    "history",
    [f'[{{"role":"user","content":{SURROGATE}}}]', f'[{{"role":{SURROGATE},"content":"a"}}]', "[" * 10_000, '{"a":1}'],
)
def test_a_history_that_is_no_conversation_is_refused(wire: Wire, history: str) -> None:
    error = error_of(wire, request("generator", {"text_input": QUESTION, "history": history}))
    assert error.code == "bad_request"
    assert "history" in error.message


@pytest.mark.parametrize("case", FINE)
def test_an_odd_stop_word_is_one_like_another(wire: Wire, case: str) -> None:
    plain = answer_of(wire, request("generator", {"text_input": QUESTION}))
    words = np.array([FINE[case].encode(), b""], object)
    message = request("generator", {"text_input": QUESTION, "stop_words": words})
    if len(words[0]) > LimitSettings().stop_word_bytes:
        assert "stop_words has" in error_of(wire, message).message
    elif FINE[case] not in strings(plain["text_output"])[0].decode():
        assert answer_of(wire, message) == plain
    else:
        assert len(strings(answer_of(wire, message)["text_output"])[0]) < len(strings(plain["text_output"])[0])


ODD_IDS: Final = {**FINE, "NUL": "a\0b", "a megabyte": "x" * 2**20}


@pytest.mark.parametrize("case", ODD_IDS)
@pytest.mark.parametrize("model", ANSWER_MODELS)
def test_an_odd_request_id_is_one_like_another(wire: Wire, model: str, case: str) -> None:
    plain = answer_of(wire, request(model, {"text_input": QUESTION}))
    assert answer_of(wire, request(model, {"text_input": QUESTION}, request_id=ODD_IDS[case])) == plain


@pytest.mark.parametrize("case", ODD_IDS)
def test_stopping_what_does_not_run_says_so_in_few_words_whatever_its_id(wire: Wire, case: str) -> None:
    error = error_of(wire, request("generator", {"stop": True}, request_id=ODD_IDS[case]))
    assert error.code == "not_found"


def unit(dim: int = 384) -> np.ndarray[Any, Any]:
    return np.full((1, dim), dim**-0.5, np.float32)


def spoiled(value: float) -> np.ndarray[Any, Any]:
    vector = unit()
    vector[0, 200] = value
    return vector


VECTORS: Final = {
    "NaN": (spoiled(float("nan")), "NaN"),
    "NaN everywhere": (np.full((1, 384), np.nan, np.float32), "NaN"),
    "infinite": (spoiled(float("inf")), "infinity"),
    "minus infinite": (spoiled(float("-inf")), "infinity"),
    "zero": (np.zeros((1, 384), np.float32), "unit"),
    "not of unit length": (unit() * 2, "unit|length"),
    "a little too short": (unit() * np.float32(0.9), "unit|length"),
    "the greatest numbers": (np.full((1, 384), np.finfo(np.float32).max, np.float32), "unit|length|finite|inf"),
    "the smallest numbers": (np.full((1, 384), 1e-45, np.float32), "unit|length"),
    "one value too few": (unit(383), "383"),
    "one value too many": (unit(385), "385"),
    "one value": (unit(1), "1"),
    "a hundred thousand values": (unit(100_000), "100000"),
}


@pytest.mark.parametrize("case", VECTORS)
@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_a_vector_that_is_no_embedding_is_refused_by_what_it_is(wire: Wire, mode: str, case: str) -> None:
    vector, named = VECTORS[case]
    error = error_of(wire, request("retriever", {"embedding": vector, "text_input": QUESTION, "mode": mode}))
    assert error.code == "bad_request"
    assert any(word in error.message for word in named.split("|")), error.message


@pytest.mark.parametrize("case", VECTORS)
def test_a_vector_that_is_not_looked_at_spoils_nothing(wire: Wire, case: str) -> None:
    asked = {"text_input": QUESTION, "mode": "lexical"}
    plain = answer_of(wire, request("retriever", asked))
    given = wire.ask(request("retriever", {**asked, "embedding": VECTORS[case][0]}))
    assert isinstance(given, Failure) or given == plain
    if isinstance(given, dict):
        require_sound(given)


def test_a_bad_vector_in_company_is_refused_alone_and_the_others_are_searched_for(wire: Wire) -> None:
    good = request("retriever", {"embedding": unit(), "mode": "dense"})
    alone = answer_of(wire, good)
    bad = [request("retriever", {"embedding": vector, "mode": "dense"}) for vector, _ in VECTORS.values()]
    calls = [wire.stub.ModelInfer.future(one, timeout=DEADLINE_S) for pair in bad for one in (good, pair)]
    for number, call in enumerate(calls):
        assert (call.exception() is None) == (number % 2 == 0)
        if number % 2 == 0:
            raw = dict(zip([one.name for one in call.result().outputs], call.result().raw_output_contents, strict=True))
            assert raw["passage_ids"] == alone["passage_ids"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_a_number_that_is_none_is_refused(wire: Wire, name: str, value: float) -> None:
    error = error_of(wire, request("generator", {"text_input": QUESTION, name: value}))
    assert error.code == "bad_request"
    assert name in error.message


def brought(passage: bytes, **changes: Any) -> dict[str, Any]:
    """A question to `generator` with a passage that the caller brings along."""
    return {
        "text_input": QUESTION,
        "passages": np.array([passage], object),
        "passage_ids": np.array([7], np.int64),
        "scores": np.array([0.5], np.float32),
        **changes,
    }


def passage(**changes: Any) -> bytes:
    fields = {"text": "JSON is parsed by loads.", "title": "", "uri": "u", "start": 0, "end": 1, "metadata": {}}
    return json.dumps({**fields, **changes}).encode()


@pytest.mark.parametrize("case", FINE)
def test_odd_passages_that_a_caller_brings_are_quoted_as_they_are(wire: Wire, case: str) -> None:
    given = passage(text=f"To parse a JSON document call loads {FINE[case]}.", title=FINE[case], uri=FINE[case])
    answer = answer_of(wire, request("generator", brought(given)))
    ((sources,),) = (strings(answer["sources"]),)
    (source,) = decode_sources(sources)
    assert source.passage.title == FINE[case]


NO_PASSAGES: Final = {
    "a lone surrogate in the text": passage().replace(b"loads", b"\\ud800 loads"),
    "a lone surrogate in the title": passage(title="x").replace(b'"x"', b'"\\udfff"'),
    "a text that is a number": passage(text=7),
    "a text that is null": passage(text=None),
    "a title that is a list": passage(title=[]),
    "an offset that is a text": passage(start="0"),
    "an offset that is true": passage(start=True),
    "metadata that is a list": passage(metadata=[]),
    "metadata of NaN": passage(metadata={"a": float("nan")}),
    "nested too deep": passage(metadata="x").replace(b'"x"', b"[" * 100_000 + b"]" * 100_000),
    "a space before it": b" " + passage(),
    "a byte order mark before it": b"\xef\xbb\xbf" + passage(),
    "UTF-16": passage().decode().encode("utf-16"),
    "a number of many digits": passage(start=7).replace(b"7", b"7" * 5_000),
    "a field that is none": passage(n=1),
    "a list": b"[]",
    "nothing": b"",
}


@pytest.mark.parametrize("case", NO_PASSAGES)
def test_a_passage_that_is_none_is_refused_by_its_place(wire: Wire, case: str) -> None:
    error = error_of(wire, request("generator", brought(NO_PASSAGES[case])))
    assert error.code == "bad_request"
    assert "passages[0]" in error.message


def test_after_all_of_it_the_server_answers_as_before(wire: Wire) -> None:
    known = Known.ask(wire)
    for case in REFUSED:
        error_of(wire, request("retrieve", {"text_input": REFUSED[case][0]}))
    assert Known.ask(wire) == known
