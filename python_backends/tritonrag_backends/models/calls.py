"""Calls from the generator to other models of the repository (Triton's BLS), as awaitables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import triton_python_backend_utils as pb_utils

from tritonrag_backends.models.edge import strings_tensor
from tritonrag_backends.models.questions import Question, Retrieved
from tritonrag_client.contract import (
    DEGRADED,
    EMBEDDER,
    EMBEDDING,
    FILTER,
    INDEX_VERSION,
    INPUT_TYPE,
    MODE,
    NUM_PASSAGES,
    PASSAGE_IDS,
    PASSAGES,
    RETRIEVE,
    SCORES,
    TENANT,
    TEXT_INPUT,
    InputType,
)
from tritonrag_client.errors import InternalError, RagError, UnavailableError, parse_error

# What Triton says of a model whose process died, that is being loaded anew, and of itself when it ends (2.51.0).
_NOT_NOW: Final = (
    "is not healthy",
    "has no available versions",
    "is not ready",
    "Server is stopping",
    "Server exiting",
)


async def embed(question: str, sentences: Sequence[str]) -> np.ndarray[Any, Any]:
    """Unit vectors FP32 [1 + n, dim] from `embedder`: of the question as a query, then of n sentences as passages.

    Raises what the embedder answered.
    """
    shape = (1 + len(sentences), 1)
    texts = strings_tensor(TEXT_INPUT, [text.encode() for text in (question, *sentences)], shape)
    kinds: list[InputType] = ["query"]
    kinds.extend("passage" for _ in sentences)
    (vectors,) = await _call(
        EMBEDDER, [texts, strings_tensor(INPUT_TYPE, [kind.encode() for kind in kinds], shape)], [EMBEDDING]
    )
    return vectors


async def retrieve(question: Question, timeout_s: float) -> Retrieved:
    """The passages for a question from `retrieve`, which begins nothing once `timeout_s` are over. Raises what it answered."""
    inputs = [strings_tensor(TEXT_INPUT, [question.text.encode()], (1, 1))]
    if question.num_passages is not None:
        inputs.append(pb_utils.Tensor(NUM_PASSAGES, np.array([[question.num_passages]], np.int32)))
    for name, text in ((TENANT, question.tenant), (FILTER, question.filter), (MODE, question.mode)):
        if text is not None:
            inputs.append(strings_tensor(name, [text.encode()], (1, 1)))
    wanted = [PASSAGE_IDS, SCORES, PASSAGES, INDEX_VERSION, DEGRADED]
    ids, scores, passages, version, degraded = await _call(RETRIEVE, inputs, wanted, timeout_s=timeout_s)
    return Retrieved(
        passage_ids=ids,
        scores=scores,
        passages=passages,
        index_version=int(version.ravel()[0]),
        degraded=degraded.ravel()[0].decode(),
    )


async def _call(
    model: str, inputs: list[pb_utils.Tensor], outputs: list[str], *, timeout_s: float | None = None
) -> list[np.ndarray[Any, Any]]:
    request = pb_utils.InferenceRequest(
        model_name=model,
        inputs=inputs,
        requested_output_names=outputs,
        timeout=0 if timeout_s is None else max(1, int(timeout_s * 1e6)),  # microseconds; 0 is Triton's word for none
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = await request.async_exec()
    if response.has_error():
        raise _failure(model, response.error().message())
    return [pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in outputs]


def _failure(model: str, message: str) -> RagError:
    """Ours as it is; Triton's own, where the model has no process or the server ends, is one that a retry can help."""
    if (ours := parse_error(message)) is not None:
        return ours
    if any(text in message for text in _NOT_NOW):
        return UnavailableError(f"{model} can't be asked just now; try again")
    return InternalError(f"{model} failed: {message}")
