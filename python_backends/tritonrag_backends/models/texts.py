"""Texts to embed, as `embedder` and `tokenizer` read them from a request: each with what it is, a query or a passage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tritonrag_backends.embedding.tokens import parse_input_type
from tritonrag_backends.models.edge import require_text, texts_of
from tritonrag_client.contract import INPUT_TYPE, TEXT_INPUT, InputType
from tritonrag_client.errors import BadRequestError

if TYPE_CHECKING:
    import triton_python_backend_utils as pb_utils

_LIMIT_NAME = "TRITONRAG_LIMITS_TEXT_BYTES"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedTexts:
    """Texts, none of them blank, and the input type of each."""

    texts: list[str]
    input_types: list[InputType]

    @classmethod
    def joined(cls, groups: Iterable[TypedTexts]) -> TypedTexts:
        """All of them, in order."""
        groups = list(groups)
        return cls(
            texts=[text for group in groups for text in group.texts],
            input_types=[one for group in groups for one in group.input_types],
        )


def read_typed_texts(request: pb_utils.InferenceRequest, limit_bytes: int) -> TypedTexts:
    """`text_input` and `input_type`, STRING [batch, 1] each; without the second, all are queries.

    Raises BadRequestError for a text that is missing, blank or too long, and for an input type that is none of ours.
    """
    given: list[str] | list[None] = texts_of(request, TEXT_INPUT, limit_bytes, _LIMIT_NAME) or [None]
    texts = [require_text(text, TEXT_INPUT) for text in given]
    types = texts_of(request, INPUT_TYPE, limit_bytes, _LIMIT_NAME)
    input_types = [parse_input_type(one) for one in ([""] * len(texts) if types is None else types)]
    if len(input_types) != len(texts):
        raise BadRequestError(
            f"{INPUT_TYPE} has {len(input_types)} rows for {len(texts)} of {TEXT_INPUT}; send one for each"
        )
    return TypedTexts(texts=texts, input_types=input_types)
