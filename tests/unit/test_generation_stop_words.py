"""A stop word cuts the stream wherever the pieces fall, and nothing is held back for longer than it must be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.stop_words import StopWords

LETTERS = st.text("abAB\n é", max_size=12)


def through(words: list[str], pieces: list[str]) -> str:
    cutter = StopWords(words)
    passed = [cutter.push(piece) for piece in pieces]
    return "".join(passed) + ("" if cutter.found else cutter.flush())


def cut(words: list[str], text: str) -> str:
    """What should come through: the text up to the stop word that is complete first."""
    ends = [(at + len(word), at) for word in words if word and (at := text.find(word)) >= 0]
    return text[: min(ends)[1]] if ends else text


def test_a_stop_word_that_spans_two_pieces_is_cut() -> None:
    cutter = StopWords(["STOP"])
    assert [cutter.push("go on ST"), cutter.push("OP and on")] == ["go on ", ""]
    assert cutter.found == "STOP"


def test_what_only_looked_like_a_beginning_comes_through() -> None:
    cutter = StopWords(["STOP"])
    assert [cutter.push("ST"), cutter.push("ATE")] == ["", "STATE"]
    assert cutter.flush() == ""


def test_without_stop_words_everything_passes_at_once() -> None:
    assert StopWords([]).push("abc") == "abc"


def test_empty_stop_words_stop_nothing() -> None:
    assert through(["", "x"], ["a", "b"]) == "ab"


@given(words=st.lists(LETTERS, max_size=3), pieces=st.lists(LETTERS, max_size=8))
def test_however_the_text_falls_into_pieces_the_same_comes_through(words: list[str], pieces: list[str]) -> None:
    assert through(words, pieces) == cut(words, "".join(pieces))


@pytest.mark.parametrize("word", ["ab", "aab", "aaa"])
def test_no_more_is_held_back_than_could_begin_a_stop_word(word: str) -> None:
    cutter = StopWords([word])
    passed = cutter.push("xyz" + word[:-1])
    assert passed == "xyz"
