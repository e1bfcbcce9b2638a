"""Calls from the generator to other models of the repository (Triton's BLS), as awaitables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from tritonrag_backends.models.edge import strings_tensor
from tritonrag_backends.models.questions import Question, Retrieved
from tritonrag_client.contract import (
    EMBEDDER,
    EMBEDDING,
    FILTER,
    INDEX_VERSION,
    MODE,
    NUM_PASSAGES,
    PASSAGE_IDS,
    PASSAGES,
    RETRIEVE,
    SCORES,
    TENANT,
    TEXT_INPUT,
)
from tritonrag_client.errors import InternalError, parse_error


async def embed(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Unit vectors FP32 [n, dim] of n texts from `embedder`. Raises what the embedder answered."""
    column = strings_tensor(TEXT_INPUT, [text.encode() for text in texts], (len(texts), 1))
    (vectors,) = await _call(EMBEDDER, [column], [EMBEDDING])
    return vectors


async def retrieve(question: Question) -> Retrieved:
    """The passages for a question from `retrieve`. Raises what the retriever answered."""
    inputs = [strings_tensor(TEXT_INPUT, [question.text.encode()], (1, 1))]
    if question.num_passages is not None:
        inputs.append(pb_utils.Tensor(NUM_PASSAGES, np.array([[question.num_passages]], np.int32)))
    for name, text in ((TENANT, question.tenant), (FILTER, question.filter), (MODE, question.mode)):
        if text is not None:
            inputs.append(strings_tensor(name, [text.encode()], (1, 1)))
    wanted = [PASSAGE_IDS, SCORES, PASSAGES, INDEX_VERSION]
    ids, scores, passages, version = await _call(RETRIEVE, inputs, wanted)
    return Retrieved(passage_ids=ids, scores=scores, passages=passages, index_version=int(version.ravel()[0]))


async def _call(model: str, inputs: list[pb_utils.Tensor], outputs: list[str]) -> list[np.ndarray[Any, Any]]:
    request = pb_utils.InferenceRequest(
        model_name=model,
        inputs=inputs,
        requested_output_names=outputs,
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = await request.async_exec()
    if response.has_error():
        message = response.error().message()
        raise parse_error(message) or InternalError(f"{model} failed: {message}")
    return [pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in outputs]
