"""The conversation's JSON form: what is encoded comes back, and what is none is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_client.contract import Turn, decode_history, encode_history

TURNS = st.lists(st.builds(Turn, role=st.sampled_from(["user", "assistant"]), content=st.text()))


@given(turns=TURNS)
def test_a_conversation_comes_back(turns: list[Turn]) -> None:
    assert decode_history(encode_history(turns)) == turns


def test_no_history_is_an_empty_one() -> None:
    assert decode_history("") == []


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "{}",
        "3",
        "[3]",
        '[{"role": "user"}]',
        '[{"role": "user", "content": 3}]',
        '[{"role": [], "content": ""}]',
        "[" * 100_000,
    ],
)
def test_what_is_no_conversation_is_a_value_error(data: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_history(data)
