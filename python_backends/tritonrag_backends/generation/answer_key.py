"""The key under which an answer is known: everything that decides what the answer is."""

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from tritonrag_backends.generation.engine import Sampling
from tritonrag_client.contract import Passage, Turn

_VERSION: Final = 1  # of this serialisation and of what goes into it


def answer_key(
    *,
    question: str,
    history: Sequence[Turn],
    tenant: str | None,
    index_version: int | None,
    passages: Sequence[Passage],
    passage_ids: Sequence[int],
    prompt_fingerprint: str,
    engine_fingerprint: str,
    sampling: Sampling,
) -> str:
    """The sha256, in hex, of all of it; `passages` in rank order, with all that they hold, because anything may be read.

    Whatever differs gives another key: nested JSON lists say where each value ends, which texts put one behind the other would not.
    """
    parts = [
        _VERSION,
        question,
        [[turn.role, turn.content] for turn in history],
        tenant,
        index_version,
        [[one.text, one.title, one.uri, one.start, one.end, dict(one.metadata)] for one in passages],
        list(passage_ids),
        prompt_fingerprint,
        engine_fingerprint,
        _sampling(sampling),
    ]
    # Not ASCII: \u escapes would write a pair of lone surrogates and the character that they stand for alike.
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _sampling(sampling: Sampling) -> list[object]:
    return [
        sampling.max_tokens,
        sampling.temperature,
        sampling.top_p,
        sampling.seed,
        list(sampling.stop_words),
        sampling.lora_name,
    ]
