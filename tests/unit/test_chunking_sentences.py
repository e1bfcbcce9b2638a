"""Sentences end where a reader would say so; in doubt they don't."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.text.pieces import pieces
from tritonrag_backends.text.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text, 0, len(text))]


@pytest.mark.parametrize(
    "expected",
    [
        ["It is fast.", "It is small."],
        ["Really?", "Yes!", "Well…", "Fine."],
        ['He said "no."', "She left.", "(Both did.)", "End."],
        ["Use Python 3.11.", "It is fast."],
        ["Use e.g. json.loads, i.e. the parser, cf. Fig. 3 by Dr. Smith.", "Then J. R. Doe."],
        ["Lists, dicts, etc. are mutable.", "Strings, tuples, etc.", "They are not."],
        ["It returns None. os.path is another matter."],
        ["See version 2.1.0 of a.b.c for more."],
        ["1. Open the box."],
        ["世界。", "你好。", "再见。"],
        ["No full stop at the end"],
    ],
)
def test_these_are_the_sentences(expected: list[str]) -> None:
    joined = ("" if expected[0] == "世界。" else " ").join(expected)
    assert sentences(joined) == expected


def test_a_number_that_opens_a_line_is_no_sentence() -> None:
    assert sentences("Unified system\n2.1. Directory layout") == ["Unified system\n2.1. Directory layout"]


@given(st.text(alphabet=st.sampled_from("ab A.!?…。\"'”)] 1\n\té😀") | st.characters()))
def test_spans_are_in_order_and_leave_out_white_space_alone(text: str) -> None:
    position = 0
    for start, end in sentence_spans(text, 0, len(text)):
        assert not text[position:start].strip()
        assert text[start:end] == text[start:end].strip() != ""
        position = end
    assert not text[position:].strip()


@pytest.mark.parametrize(
    "unit", [".", ". ", "a", " ", "e.g. ", '"a. ', "世界。", "1. ", "A.", "\n", "- ", "|", "```", "a   ", ".)"]
)
def test_a_huge_line_of_anything_is_read_in_one_go(unit: str) -> None:
    """Nothing here is quadratic: that would take hours, so the time limit of the test run is the judge."""
    text = unit * (300_000 // len(unit))
    last = 0
    for piece in pieces(text, 0, len(text)):
        last = piece.end
    assert not text[last:].strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one line\nruns on\n\nnext", ["one line\nruns on", "next"]),
        ("- a\n  goes on\n- b\n* c\n2) d", ["- a\n  goes on", "- b", "* c", "2) d"]),
        (":param x: the x,\n    if any\n:returns: y", [":param x: the x,\n    if any", ":returns: y"]),
        (">>> f(1)\n2\n>>> g()", [">>> f(1)", "2", ">>> g()"]),
        ("```\na\n\nb. C\n```\nText", ["```", "a", "b. C", "```", "Text"]),
        ("~~~\n```\n~~~\nText goes\non", ["~~~", "```", "~~~", "Text goes\non"]),
        ("| a | b |\n|---|---|\n| 1. X | 2 |", ["| a | b |", "|---|---|", "| 1. X | 2 |"]),
        ("name    value\nother   thing", ["name    value", "other   thing"]),
        ("Term\n    its meaning\n    explained", ["Term", "its meaning\n    explained"]),
    ],
)
def test_lines_of_lists_code_and_tables_are_pieces(text: str, expected: list[str]) -> None:
    found = pieces(text, 0, len(text))
    assert [text[piece.start : piece.end] for piece in found] == expected
