"""What one request may hold is bounded at the edge; docs/security.md lists every limit with its variable."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.server.wire import Failure, Wire, request
from tritonrag_backends.settings import LimitSettings, known_variables
from tritonrag_client.contract import MAX_BATCH
from tritonrag_client.errors import parse_error

QUESTION = "How do I parse a JSON document?"
LIMITS = LimitSettings()
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
PASSAGE = b'{"text":"A text.","title":"","uri":"u","start":0,"end":7,"metadata":{}}'


def words(count: int, length: int) -> np.ndarray[Any, Any]:
    return np.array([f"{number:0{length}d}".encode() for number in range(count)], object)


def brought(count: int, size: int = len(PASSAGE)) -> dict[str, Any]:
    """Passages that come with the question, of so many bytes each."""
    passage = PASSAGE.replace(b"A text.", b"A text." + b"x" * (size - len(PASSAGE)))
    return {
        "passages": np.array([passage] * count, object),
        "passage_ids": np.arange(count),
        "scores": np.ones(count, np.float32),
    }


# What is sent beside the question at the limit, beyond it, to which models, and what the refusal names.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...], str]] = {
    "question": (
        {"text_input": "x" * LIMITS.text_bytes},
        {"text_input": "x" * (LIMITS.text_bytes + 1)},
        ("embedder", "retrieve", "rag", "generator"),
        "text_input has 32769 bytes.*TRITONRAG_LIMITS_TEXT_BYTES",
    ),
    "passages asked for": (
        {"num_passages": LIMITS.num_passages},
        {"num_passages": LIMITS.num_passages + 1},
        ("retrieve", "rag", "generator"),
        "num_passages is 101; ask for 1 to 100",
    ),
    "filter": (
        {"filter": json.dumps({"or": []}).ljust(LIMITS.filter_bytes)},
        {"filter": json.dumps({"or": []}).ljust(LIMITS.filter_bytes + 1)},
        ("retrieve", "rag", "generator"),
        "filter has 16385 bytes.*TRITONRAG_LIMITS_FILTER_BYTES",
    ),
    "tokens": (
        {"max_tokens": LIMITS.max_tokens},
        {"max_tokens": LIMITS.max_tokens + 1},
        ("rag", "generator"),
        "max_tokens is 4097; ask for 1 to 4096",
    ),
    "history": (
        {"history": "[]".ljust(LIMITS.history_bytes)},
        {"history": "[]".ljust(LIMITS.history_bytes + 1)},
        ("rag", "generator"),
        "history has 65537 bytes.*TRITONRAG_LIMITS_HISTORY_BYTES",
    ),
    "stop words": (
        {"stop_words": words(LIMITS.stop_words, 40)},
        {"stop_words": words(LIMITS.stop_words + 1, 40)},
        ("rag", "generator"),
        "stop_words has 17 elements; send at most 16, or raise TRITONRAG_LIMITS_STOP_WORDS",
    ),
    "a stop word": (
        {"stop_words": words(1, LIMITS.stop_word_bytes)},
        {"stop_words": words(1, LIMITS.stop_word_bytes + 1)},
        ("rag", "generator"),
        "stop_words has 257 bytes; send at most 256, or raise TRITONRAG_LIMITS_STOP_WORD_BYTES",
    ),
    "passages brought along": (
        brought(LIMITS.num_passages),
        brought(LIMITS.num_passages + 1),
        ("generator",),
        "passages has 101 elements; send at most 100, or raise TRITONRAG_LIMITS_NUM_PASSAGES",
    ),
    "bytes of passages brought along": (
        brought(2, LIMITS.passages_bytes // 4),
        brought(2, LIMITS.passages_bytes // 2 + 1),
        ("generator",),
        "passages has 16777218 bytes; send at most 16777216, or raise TRITONRAG_LIMITS_PASSAGES_BYTES",
    ),
}
EACH = [(case, model) for case, (_, _, models, _) in CASES.items() for model in models]


@pytest.mark.parametrize(("case", "model"), EACH)
def test_beyond_a_limit_a_request_is_refused_by_its_name_and_the_limits(wire: Wire, case: str, model: str) -> None:
    _, beyond, _, named = CASES[case]
    answer = wire.ask(request(model, {"text_input": QUESTION, **beyond}))
    assert isinstance(answer, Failure), answer
    error = parse_error(answer.message)
    assert error is not None, answer.message
    assert error.code == "bad_request"
    assert re.search(named, error.message), error.message


@pytest.mark.parametrize(("case", "model"), EACH)
def test_at_a_limit_it_is_not(wire: Wire, case: str, model: str) -> None:
    within, _, _, named = CASES[case]
    answer = wire.ask(request(model, {"text_input": QUESTION, **within}))
    if isinstance(answer, Failure):  # such as an empty `or`: for another reason than its size
        assert not re.search(named.partition(" ")[0] + ".*(at most|ask for)", answer.message), answer.message


def test_more_rows_than_a_batch_has_are_refused_by_triton(wire: Wire) -> None:
    for model in ("embedder", "retrieve"):
        answer = wire.unary(request(model, {"text_input": np.full((MAX_BATCH + 1, 1), b"a", object)}))
        assert isinstance(answer, Failure)
        assert answer.status == "INVALID_ARGUMENT"
        assert str(MAX_BATCH) in answer.message


def test_the_page_names_every_limit() -> None:
    page = PAGE.read_text()
    limits = [name for name in known_variables() if name.startswith("TRITONRAG_LIMITS_")]
    assert [name for name in limits if name not in page] == []
