"""Requests for each job of a client, as Triton's messages. Only options that are given are sent; the server is their judge."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tritonrag_client._codec import BYTES, add_input, encode_number, encode_text, new_request
from tritonrag_client._wire import Message
from tritonrag_client.contract import (
    EMBEDDER,
    FILTER,
    GENERATOR,
    HISTORY,
    INPUT_TYPE,
    LORA_NAME,
    MAX_BATCH,
    MAX_TOKENS,
    MODE,
    NUM_PASSAGES,
    RETRIEVE,
    SEED,
    STOP,
    STOP_WORDS,
    STREAM,
    STRICT,
    TEMPERATURE,
    TENANT,
    TEXT_INPUT,
    TOP_P,
    Turn,
    decode_history,
    encode_history,
)
from tritonrag_client.errors import BadRequestError

_DATATYPES: Final = {
    NUM_PASSAGES: "INT32",
    TENANT: BYTES,
    FILTER: BYTES,
    MODE: BYTES,
    STREAM: "BOOL",
    MAX_TOKENS: "INT32",
    TEMPERATURE: "FP32",
    TOP_P: "FP32",
    SEED: "UINT64",
    LORA_NAME: BYTES,
    HISTORY: BYTES,
    STRICT: "BOOL",
}
_QUERY: Final = "query"
_SEARCH_OPTIONS: Final = frozenset({NUM_PASSAGES, TENANT, FILTER, MODE})
_ANSWER_OPTIONS: Final = frozenset(_DATATYPES) - {STREAM} | {STOP_WORDS}


def answer_request(model: str, question: str, request_id: str, options: Mapping[str, Any], *, stream: bool) -> Message:
    """A question to `generator` or `rag`, neither of which batches: every tensor has shape [1], stop_words [n]."""
    given = _given(options, _ANSWER_OPTIONS)
    request = new_request(model, request_id)
    add_input(request, TEXT_INPUT, BYTES, [1], encode_text(TEXT_INPUT, question))
    words = texts_of(STOP_WORDS, given.pop(STOP_WORDS, ()))
    if words:
        add_input(request, STOP_WORDS, BYTES, [len(words)], b"".join(encode_text(STOP_WORDS, word) for word in words))
    if stream:
        given[STREAM] = True
    for name, value in given.items():
        add_input(request, name, _DATATYPES[name], [1], _encode(name, value))
    return request


def stop_request(request_id: str, tenant: str | None) -> Message:
    """The request that ends the running generation with this id and tenant."""
    if not isinstance(request_id, str) or not request_id:
        raise BadRequestError(f"request_id is {request_id!r}; give the id of the request that should end")
    request = new_request(GENERATOR, request_id)
    add_input(request, STOP, "BOOL", [1], encode_number(STOP, "BOOL", True))
    if tenant is not None:
        add_input(request, TENANT, BYTES, [1], encode_text(TENANT, tenant))
    return request


def search_requests(questions: Sequence[str], options: Mapping[str, Any]) -> Iterator[Message]:
    """Questions to `retrieve`, up to MAX_BATCH in a request; each tensor has shape [batch, 1]."""
    given = _given(options, _SEARCH_OPTIONS)
    for request, batch in _batches(RETRIEVE, questions):
        for name, value in given.items():
            add_input(request, name, _DATATYPES[name], [batch, 1], _encode(name, value) * batch)
        yield request


def embed_requests(texts: Sequence[str], input_type: str = _QUERY) -> Iterator[Message]:
    """Texts to `embedder`, up to MAX_BATCH in a request; each tensor has shape [batch, 1]."""
    for request, batch in _batches(EMBEDDER, texts):
        if input_type != _QUERY:  # what a server takes texts for that are sent without a word
            add_input(request, INPUT_TYPE, BYTES, [batch, 1], encode_text(INPUT_TYPE, input_type) * batch)
        yield request


def texts_of(name: str, texts: object) -> Sequence[str]:
    """`texts` if it is a sequence of them. One str is refused: it would be taken for a sequence of its characters."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
        raise BadRequestError(f"{name} is {texts!r}; give a sequence of str")
    return texts


def rows_of(name: str, texts: str | Sequence[str]) -> Sequence[str]:
    """One text or a sequence of them as a sequence."""
    return [texts] if isinstance(texts, str) else texts_of(name, texts)


def _batches(model: str, texts: Sequence[str]) -> Iterator[tuple[Message, int]]:
    for start in range(0, len(texts), MAX_BATCH):
        batch = texts[start : start + MAX_BATCH]
        request = new_request(model)
        add_input(
            request, TEXT_INPUT, BYTES, [len(batch), 1], b"".join(encode_text(TEXT_INPUT, text) for text in batch)
        )
        yield request, len(batch)


def _given(options: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    if unknown := sorted(options.keys() - known):
        raise BadRequestError(f"unknown option {unknown[0]}; use {', '.join(sorted(known))}")
    return {name: value for name, value in options.items() if value is not None}


def _encode(name: str, value: object) -> bytes:
    if name == FILTER:
        value = _filter_json(value)
    elif name == HISTORY:
        value = _history_json(value)
    datatype = _DATATYPES[name]
    return encode_text(name, value) if datatype == BYTES else encode_number(name, datatype, value)


def _filter_json(condition: object) -> str:
    if not isinstance(condition, Mapping):
        raise BadRequestError(f"{FILTER} is {condition!r}; give a mapping, such as {{'lang': 'en'}}")
    try:
        return json.dumps(dict(condition), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"{FILTER} can't be written as JSON: {error}") from None


def _history_json(turns: object) -> str:
    """What was said before as the server will read it: the contract's own reader is the judge here too."""
    if isinstance(turns, str | bytes) or not isinstance(turns, Sequence):
        raise BadRequestError(f"{HISTORY} is {turns!r}; give a sequence of Turn")
    try:
        return encode_history(decode_history(json.dumps([_turn_object(turn) for turn in turns])))
    except (TypeError, ValueError) as error:
        raise BadRequestError(
            f'{HISTORY} is no conversation: {error}; give Turn(role="user" or "assistant", content=text) for each turn'
        ) from None


def _turn_object(turn: object) -> object:
    if isinstance(turn, Turn):
        return {"role": turn.role, "content": turn.content}
    return dict(turn) if isinstance(turn, Mapping) else turn
