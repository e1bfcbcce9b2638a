"""The contract: a conversation that is encoded comes back, what is none is named, and the table of errors is true."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_client import errors
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


def test_the_table_of_errors_is_what_servers_send_and_clients_retry() -> None:
    rows = re.findall(r"── (\w+) +(\w+) +([A-Z_]+) +(yes|no)", errors.__doc__ or "")
    table = {code: (name, status, again == "yes") for name, code, status, again in rows}
    sent = _statuses_of_the_edge()
    assert table == {code: (one.__name__, sent[code], one.retryable) for code, one in errors.ERROR_TYPES.items()}


def _statuses_of_the_edge() -> dict[str, str]:
    """By our code; read, not imported, for only Triton has what that module imports."""
    package = importlib.util.find_spec("tritonrag_backends")
    assert package is not None
    (folder,) = package.submodule_search_locations or []
    for node in ast.parse((Path(folder) / "models" / "edge.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_TRITON_CODES":
            statuses: dict[str, str] = ast.literal_eval(node.value)
            return statuses
    raise AssertionError("edge.py names no status")
