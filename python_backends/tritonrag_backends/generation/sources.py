"""Passages as they came over the wire, made into the answer's sources."""

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from tritonrag_client.contract import NO_PASSAGE, Passage
from tritonrag_client.errors import BadRequestError


def splice_sources(passage_ids: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], passages: Sequence[bytes]) -> bytes:
    """The `sources` JSON, made by putting n, passage_id and score before the fields of each passage's own JSON.

    The passages' text is neither decoded nor encoded again. `passage_ids` INT64 [k], `scores` FP32 [k], no padding among them.
    """
    rows = zip(passage_ids.tolist(), scores.tolist(), passages, strict=True)
    heads = (
        (f'{{"n":{n},"passage_id":{passage_id},"score":{json.dumps(round(score, 6))},'.encode(), passage)
        for n, (passage_id, score, passage) in enumerate(rows, start=1)
    )
    return b"[" + b",".join(head + passage[1:] for head, passage in heads) + b"]"


def parse_passages(passages: Sequence[bytes]) -> tuple[Passage, ...]:
    """Read the passages' JSON. Raises BadRequestError that names the one that is none."""
    parsed: list[Passage] = []
    for position, raw in enumerate(passages):
        try:
            parsed.append(_parse(raw))
        except (ValueError, TypeError, RecursionError) as error:
            raise BadRequestError(f"passages[{position}] is {raw[:40]!r}: not a passage's JSON ({error})") from None
    return tuple(parsed)


def _parse(raw: bytes) -> Passage:
    """Callers may bring passages along, so types are looked at. UTF-8 from brace to brace alone: it is spliced as it stands."""
    text = raw.decode()
    if not text.startswith("{"):
        raise ValueError("it does not begin with {")
    passage = Passage(**json.loads(text, parse_constant=_refuse_constant))
    texts, offsets = (passage.text, passage.title, passage.uri), (passage.start, passage.end)
    if not all(isinstance(one, str) for one in texts) or not all(type(one) is int for one in offsets):
        raise TypeError("text, title and uri are texts, start and end whole numbers")
    if not isinstance(passage.metadata, dict):
        raise TypeError("metadata is an object")
    if "\\u" in text:  # an escaped lone surrogate, which no text can hold
        passage.to_json()
    return passage


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def without_padding(
    passage_ids: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], passages: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[bytes]]:
    """The retriever's outputs for one question without the rows that only fill up. Raises BadRequestError for unequal lengths."""
    ids, flat_scores, texts = passage_ids.ravel(), scores.ravel(), passages.ravel()
    if not len(ids) == len(flat_scores) == len(texts):
        raise BadRequestError(
            f"passage_ids, scores and passages have {len(ids)}, {len(flat_scores)} and {len(texts)} elements; send as many of each"
        )
    if not np.isfinite(flat_scores).all():
        raise BadRequestError(f"scores holds {flat_scores[~np.isfinite(flat_scores)][0]}; send finite numbers")
    kept = ids != NO_PASSAGE
    return ids[kept], flat_scores[kept], list(texts[kept])
