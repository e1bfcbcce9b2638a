"""Triton's responses as results. Raises InternalError where a response is not what the contract says."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tritonrag_client._codec import decode_outputs
from tritonrag_client._wire import Message
from tritonrag_client.contract import (
    DEGRADED,
    EMBEDDING,
    FINISH_REASON,
    INDEX_VERSION,
    NO_PASSAGE,
    PASSAGE_IDS,
    PASSAGES,
    SCORES,
    SOURCES,
    TEXT_OUTPUT,
    Passage,
    decode_sources,
)
from tritonrag_client.errors import InternalError
from tritonrag_client.results import AnswerDelta, ScoredPassage, SearchResult

_FINAL = "triton_final_response"


def is_final(response: Message) -> bool:
    """Whether this ModelInferResponse of a decoupled model is its last one."""
    return _FINAL in response.parameters and bool(response.parameters[_FINAL].bool_param)


def parse_delta(response: Message, request_id: str) -> AnswerDelta | None:
    """A generator's response; None for one without outputs, which only ends the stream."""
    if not response.outputs:
        return None
    outputs = decode_outputs(response)
    try:
        return AnswerDelta(
            text=_text(outputs, TEXT_OUTPUT),
            sources=tuple(decode_sources(_text(outputs, SOURCES))),
            finish_reason=_text(outputs, FINISH_REASON),
            degraded=_text(outputs, DEGRADED),
            request_id=request_id,
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _unreadable("an answer", error) from error


def parse_search(response: Message) -> list[SearchResult]:
    """A retriever's response: passage_ids, scores, passages [batch, k], index_version, degraded [batch, 1]; one result a row."""
    outputs = decode_outputs(response)
    try:
        rows = zip(*(outputs[name] for name in (PASSAGE_IDS, SCORES, PASSAGES, INDEX_VERSION, DEGRADED)), strict=True)
        return [
            SearchResult(
                passages=tuple(_scored(ids, scores, passages)),
                index_version=int(version[0]),
                degraded=_decoded(degraded[0], DEGRADED),
            )
            for ids, scores, passages, version, degraded in rows
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _unreadable("passages", error) from error


def parse_embedding(response: Message) -> npt.NDArray[np.float32]:
    """An embedder's response: FP32 [batch, dim]."""
    outputs = decode_outputs(response)
    embedding = outputs.get(EMBEDDING)
    if embedding is None or embedding.ndim != 2 or embedding.dtype != np.float32:  # noqa: PLR2004 - batch and dim
        raise InternalError(
            f"the server sent no {EMBEDDING} FP32 [batch, dim], only {sorted(outputs)}; is it a tritonrag?"
        )
    return embedding


def join_search(batches: Iterable[list[SearchResult]]) -> list[SearchResult]:
    """The results of several requests as those of one."""
    return [result for batch in batches for result in batch]


def join_embedding(batches: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The vectors of several requests as one array FP32 [n, dim] that may be written to; [0, 0] without any."""
    return np.concatenate(batches) if batches else np.empty((0, 0), np.float32)


def _scored(ids: npt.NDArray[Any], scores: npt.NDArray[Any], passages: npt.NDArray[Any]) -> Iterator[ScoredPassage]:
    for passage_id, score, passage in zip(ids.tolist(), scores.tolist(), passages.tolist(), strict=True):
        if passage_id != NO_PASSAGE:
            yield ScoredPassage(passage_id=passage_id, score=score, passage=Passage.from_json(passage))


def _text(outputs: Mapping[str, npt.NDArray[Any]], name: str) -> str:
    return _decoded(outputs[name].ravel()[0], name)


def _decoded(element: object, name: str) -> str:
    if not isinstance(element, bytes):
        raise TypeError(name)
    return element.decode()


def _unreadable(what: str, error: Exception) -> InternalError:
    return InternalError(
        f"the server's response does not hold {what} ({error!r}); do client and server have the same version?"
    )
