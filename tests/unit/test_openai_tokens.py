"""A prompt's tokens are counted without asking the server, rather too many than too few."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from tritonrag_backends.generation.engine import Message
from tritonrag_backends.generation.openai.tokens import TEMPLATE_TOKENS, estimate_tokens, token_counter


def message(content: str) -> Message:
    return Message(role="user", content=content)


@pytest.mark.parametrize(
    ("text", "tokens"),  # of SmolLM2's vocabulary
    [
        ("The median is the middle value of sorted data. It is robust against outliers.", 16),
        ("中位数是排序后数据的中间值。它对异常值稳健。", 31),
        ("3.14159 2718281828 192.168.0.1 2026-11-25", 41),
        ("def median(data, /, *, key=None):\n    return sorted(data, key=key)[len(data) // 2]\n", 31),
    ],
)
def test_the_estimate_is_hardly_lower_than_a_real_vocabulary_and_not_twice_as_high(text: str, tokens: int) -> None:
    assert 0.95 * tokens <= estimate_tokens(text) <= 2 * tokens


@given(st.text(), st.text())
def test_a_longer_text_is_never_estimated_shorter(text: str, more: str) -> None:
    assert estimate_tokens(text) <= estimate_tokens(text + more)
    assert (estimate_tokens(text) == 0) == (not text)


def test_each_message_costs_its_marks() -> None:
    count = token_counter(None)
    assert count([message("")] * 3) == 3 * TEMPLATE_TOKENS
    assert count([message("one"), message("two")]) == count([message("one")]) + count([message("two")])


def test_with_the_models_tokenizer_the_count_is_exact_whatever_it_cuts_or_pads(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    count = token_counter(tmp_path / "tokenizer.json")
    assert count([message("a b " * 30)]) == 60 + TEMPLATE_TOKENS
    assert count([message("a")]) == 1 + TEMPLATE_TOKENS
