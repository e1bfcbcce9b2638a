"""What a request to `generator` asks for, read from its tensors and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from tritonrag_backends.generation.engine import Sampling
from tritonrag_backends.models.edge import array_of, require_text, scalar_of, texts_of
from tritonrag_backends.settings import Settings
from tritonrag_client.contract import (
    FILTER,
    HISTORY,
    INDEX_VERSION,
    LORA_NAME,
    MAX_TOKENS,
    MODE,
    NUM_PASSAGES,
    PASSAGE_IDS,
    PASSAGES,
    RETRIEVAL_DEGRADED,
    SCORES,
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
)
from tritonrag_client.errors import BadRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """The retriever's outputs for one question, as they came: INT64 [k], FP32 [k], object [k], and the index's version.

    `index_version` is None and `degraded` "" where whoever sent the passages did not say.
    """

    passage_ids: np.ndarray[Any, Any]
    scores: np.ndarray[Any, Any]
    passages: np.ndarray[Any, Any]
    index_version: int | None
    degraded: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request. `retrieved` is None where the generator has to fetch the passages itself.

    `filter`, `mode` and `num_passages` are the retriever's to judge, and say nothing where the passages came along.
    `timeout_s` is how long the answer may take from now on.
    """

    text: str
    tenant: str | None
    filter: str | None
    mode: str | None
    num_passages: int | None
    stream: bool
    strict: bool
    timeout_s: float
    history: tuple[Turn, ...]
    sampling: Sampling
    retrieved: Retrieved | None


def is_stop(request: pb_utils.InferenceRequest) -> bool:
    """Whether the request asks for the end of a running generation rather than for an answer."""
    return bool(scalar_of(request, STOP))


def read_tenant(request: pb_utils.InferenceRequest, settings: Settings) -> str | None:
    """The tenant; None for a request without one, which an empty one is too."""
    return _one_text(request, TENANT, settings) or None


def read_question(request: pb_utils.InferenceRequest, settings: Settings) -> Question:
    """Take a request apart. Raises BadRequestError that names the value and the way out."""
    return Question(
        text=require_text(_one_text(request, TEXT_INPUT, settings), TEXT_INPUT),
        tenant=read_tenant(request, settings),
        filter=_one_text(request, FILTER, settings) or None,
        mode=_one_text(request, MODE, settings) or None,
        num_passages=scalar_of(request, NUM_PASSAGES),
        stream=bool(scalar_of(request, STREAM)),
        strict=bool(scalar_of(request, STRICT)),
        timeout_s=_read_timeout_s(request, settings),
        history=_read_history(request, settings),
        sampling=_read_sampling(request, settings),
        retrieved=_read_retrieved(request, settings),
    )


def _read_sampling(request: pb_utils.InferenceRequest, settings: Settings) -> Sampling:
    max_tokens = scalar_of(request, MAX_TOKENS)
    max_tokens = settings.generator.max_tokens if max_tokens is None else max_tokens
    if not 1 <= max_tokens <= settings.limits.max_tokens:
        raise BadRequestError(f"{MAX_TOKENS} is {max_tokens}; ask for 1 to {settings.limits.max_tokens}")
    temperature, top_p = scalar_of(request, TEMPERATURE), scalar_of(request, TOP_P)
    temperature = settings.generator.temperature if temperature is None else temperature
    if not (math.isfinite(temperature) and temperature >= 0):
        raise BadRequestError(f"{TEMPERATURE} is {temperature}; send a finite number of at least 0")
    if top_p is not None and not 0 < top_p <= 1:
        raise BadRequestError(f"{TOP_P} is {top_p}; send a number above 0, at most 1")
    return Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=scalar_of(request, SEED),
        stop_words=_read_stop_words(request, settings),
        lora_name=_one_text(request, LORA_NAME, settings) or None,
    )


def _read_stop_words(request: pb_utils.InferenceRequest, settings: Settings) -> tuple[str, ...]:
    """Each is looked for in every piece of text that is written, hence limits of their own."""
    most, limit_name = settings.limits.stop_words, "TRITONRAG_LIMITS_STOP_WORD_BYTES"
    array = array_of(request, STOP_WORDS)
    if array is not None and array.size > most:
        raise BadRequestError(
            f"{STOP_WORDS} has {array.size} elements; send at most {most}, or raise TRITONRAG_LIMITS_STOP_WORDS on the server"
        )
    words = texts_of(request, STOP_WORDS, settings.limits.stop_word_bytes, limit_name) or []
    return tuple(word for word in words if word)


def _read_retrieved(request: pb_utils.InferenceRequest, settings: Settings) -> Retrieved | None:
    arrays = {name: array_of(request, name) for name in (PASSAGE_IDS, SCORES, PASSAGES)}
    missing = [name for name, array in arrays.items() if array is None]
    if len(missing) == len(arrays):
        return None
    if missing:
        raise BadRequestError(f"{', '.join(missing)} missing; send {', '.join(arrays)} together, or none of them")
    _refuse_too_much(arrays[PASSAGES], settings)
    return Retrieved(
        **arrays,  # type: ignore[arg-type]  # none is None here
        index_version=scalar_of(request, INDEX_VERSION),
        degraded=_one_text(request, RETRIEVAL_DEGRADED, settings) or "",
    )


def _refuse_too_much(passages: np.ndarray[Any, Any] | None, settings: Settings) -> None:
    """Whoever brings passages along may bring as many as could have been asked for, and no more than their prompt could need."""
    limits, sizes = settings.limits, [len(passage) for passage in ([] if passages is None else passages.ravel())]
    if len(sizes) > limits.num_passages:
        raise BadRequestError(
            f"{PASSAGES} has {len(sizes)} elements; send at most {limits.num_passages}, or raise"
            " TRITONRAG_LIMITS_NUM_PASSAGES on the server"
        )
    if sum(sizes) > limits.passages_bytes:
        raise BadRequestError(
            f"{PASSAGES} has {sum(sizes)} bytes; send at most {limits.passages_bytes}, or raise"
            " TRITONRAG_LIMITS_PASSAGES_BYTES on the server"
        )


def _read_timeout_s(request: pb_utils.InferenceRequest, settings: Settings) -> float:
    """Triton's request parameter `timeout`, in microseconds, within what the server gives; 0 is Triton's word for none."""
    asked_us = request.timeout()
    return min(settings.generator.timeout_s, asked_us / 1e6) if asked_us > 0 else settings.generator.timeout_s


def _read_history(request: pb_utils.InferenceRequest, settings: Settings) -> tuple[Turn, ...]:
    try:
        turns = tuple(decode_history(_one_text(request, HISTORY, settings) or ""))
        for turn in turns:
            turn.content.encode()  # JSON can escape a lone surrogate, which no text can hold
        return turns  # noqa: TRY300 - what is wrong with a turn is told below too
    except ValueError as error:
        raise BadRequestError(
            f'{HISTORY} is no conversation: {error}; send a JSON list of {{"role": "user" or "assistant", "content": text}}'
        ) from None


def _one_text(request: pb_utils.InferenceRequest, name: str, settings: Settings) -> str | None:
    """The first element of a STRING input; None where it is absent."""
    limit, limit_name = settings.limits.text_bytes, "TRITONRAG_LIMITS_TEXT_BYTES"
    if name == FILTER:
        limit, limit_name = settings.limits.filter_bytes, "TRITONRAG_LIMITS_FILTER_BYTES"
    elif name == HISTORY:
        limit, limit_name = settings.limits.history_bytes, "TRITONRAG_LIMITS_HISTORY_BYTES"
    texts = texts_of(request, name, limit, limit_name)
    return texts[0] if texts else None
