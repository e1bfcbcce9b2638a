"""What a request to `retriever` or `retrieve` asks for, from its tensors, checked against the index version that will answer it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from tritonrag_backends.index import Index, Query, parse_filter
from tritonrag_backends.index.result_cache import Asked, canonical
from tritonrag_backends.models.edge import array_of, require_text, texts_of
from tritonrag_backends.settings import Settings
from tritonrag_client.contract import EMBEDDING, FILTER, MODE, NUM_PASSAGES, TENANT, TEXT_INPUT, Mode
from tritonrag_client.errors import BadRequestError

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One request: a query for each of its rows, and the outputs that it wants, all of them where it names none."""

    asked: list[Asked]
    outputs: frozenset[str]


def read_search(request: pb_utils.InferenceRequest, index: Index, settings: Settings) -> Search:
    """Take a request to `retriever` apart; each row may have its own options.

    Raises BadRequestError that names the value and the way out.
    """
    embeddings = array_of(request, EMBEDDING)
    texts = _texts(request, TEXT_INPUT, settings)
    rows = len(embeddings) if embeddings is not None else len(texts or ())
    if not rows:
        raise BadRequestError(f"{EMBEDDING} and {TEXT_INPUT} are missing; send one of them, or both")
    search = _search(request, texts or [""] * rows, settings, embeddings)
    for one in search.asked:
        index.check(one.query)  # here, so that a bad one fails alone
    return search


def read_questions(request: pb_utils.InferenceRequest, index: Index, settings: Settings) -> Search:
    """Take a request to `retrieve` apart, whose questions are still to be embedded; raises as `read_search`."""
    given: list[str] | list[None] = _texts(request, TEXT_INPUT, settings) or [None]
    search = _search(request, [require_text(text, TEXT_INPUT) for text in given], settings)
    asked = [replace(one, query=replace(one.query, mode=one.query.mode or index.default_mode)) for one in search.asked]
    for one in asked:
        index.check(one.query, embedded=False)
    return replace(search, asked=asked)


def _search(
    request: pb_utils.InferenceRequest,
    texts: list[str],
    settings: Settings,
    embeddings: np.ndarray[Any, Any] | None = None,
) -> Search:
    rows = len(texts)
    columns = {name: _texts(request, name, settings) or [""] * rows for name in (TENANT, FILTER, MODE)}
    counts = _num_passages(request, rows, settings)
    asked = [
        _asked(
            embedding=None if embeddings is None else embeddings[row],
            text=text,
            num_passages=counts[row],
            options={name: column[row] for name, column in columns.items()},
        )
        for row, text in enumerate(texts)
    ]
    return Search(asked=asked, outputs=frozenset(request.requested_output_names()))


def _asked(
    *, embedding: npt.NDArray[np.float32] | None, text: str, num_passages: int, options: dict[str, str]
) -> Asked:
    wanted = parse_filter(options[FILTER]) if options[FILTER] else None
    query = Query(
        embedding=embedding,
        num_passages=num_passages,
        text=text,
        tenant=options[TENANT] or None,
        filter=wanted,
        mode=_mode(options[MODE]),
    )
    return Asked(query=query, filter_text="" if wanted is None else canonical(options[FILTER]))


def _mode(text: str) -> Mode | None:
    if not text:
        return None
    if text not in MODES:
        raise BadRequestError(
            f"{MODE} is {text[:20]!r}; use one of {', '.join(MODES)}, or leave it out for the index's own"
        )
    return text


def _num_passages(request: pb_utils.InferenceRequest, rows: int, settings: Settings) -> list[int]:
    array = array_of(request, NUM_PASSAGES)
    if array is None:
        return [settings.retriever.num_passages] * rows
    most = settings.limits.num_passages
    counts = [int(value) for value in array.ravel()]
    for count in counts:
        if not 1 <= count <= most:
            raise BadRequestError(f"{NUM_PASSAGES} is {count}; ask for 1 to {most}")
    return counts


def _texts(request: pb_utils.InferenceRequest, name: str, settings: Settings) -> list[str] | None:
    if name == FILTER:
        return texts_of(request, name, settings.limits.filter_bytes, "TRITONRAG_LIMITS_FILTER_BYTES")
    return texts_of(request, name, settings.limits.text_bytes, "TRITONRAG_LIMITS_TEXT_BYTES")
