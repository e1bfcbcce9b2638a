"""Questions are repeatable, different from each other, and fit to be sent; perf_analyzer's input file holds them as they are."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.load import Load
from tritonrag_perf.questions import draw_questions, read_questions, write_input_data

RETRIEVE = Load(model="retrieve", concurrency=1)
RAG = Load(model="rag", concurrency=1)


def passage(title: str = "", text: str = "") -> Passage:
    return Passage(text=text, title=title, uri="doc", start=0, end=len(text))


PASSAGES = [passage(f"module{i}", f"Return the {i}th value of the table. More follows.") for i in range(40)]


def test_the_same_seed_gives_the_same_questions() -> None:
    assert draw_questions(PASSAGES, count=30, seed=7) == draw_questions(PASSAGES, count=30, seed=7)


def test_another_seed_gives_others() -> None:
    assert draw_questions(PASSAGES, count=30, seed=7) != draw_questions(PASSAGES, count=30, seed=8)


def test_the_given_passages_are_left_in_their_order() -> None:
    given_passages = list(PASSAGES)
    draw_questions(given_passages, count=5)
    assert given_passages == PASSAGES


def test_no_question_is_asked_twice_even_when_passages_repeat() -> None:
    questions = draw_questions(PASSAGES + PASSAGES, count=200)
    assert len({q.casefold() for q in questions}) == len(questions) == 200


def test_passages_that_yield_fewer_give_all_they_have() -> None:
    assert len(draw_questions([passage("json", "Encode and decode JSON. It is fast.")], count=100)) == 6


def test_questions_are_about_every_passage_before_any_comes_twice() -> None:
    questions = draw_questions(PASSAGES, count=len(PASSAGES))
    assert all(any(f"module{i}" in q or f"the {i}th value" in q for q in questions) for i in range(len(PASSAGES)))


def test_only_the_opening_of_a_long_passage_is_used() -> None:
    questions = draw_questions([passage("t " * 500, "word " * 500)], count=6)
    assert max(len(q.split()) for q in questions) <= 30


def test_a_passage_without_title_is_asked_about_by_its_opening_and_the_other_way_round() -> None:
    assert len(draw_questions([passage("", "Open a file and return a stream.")], count=9)) == 2
    assert len(draw_questions([passage("shutil", "")], count=9)) == 3


def test_rulers_and_bullets_are_no_words_of_a_question() -> None:
    assert "What is Coroutines?" in draw_questions([passage("Coroutines\n**********\n- ", "")], count=9)


@pytest.mark.parametrize("passages", [[], [passage()], [passage("\0", "!?")]], ids=["none", "empty", "no words"])
def test_passages_that_say_nothing_are_refused(passages: list[Passage]) -> None:
    with pytest.raises(BadRequestError, match="file of questions"):
        draw_questions(passages, count=3)


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(BadRequestError, match="0"):
        draw_questions(PASSAGES, count=0)


@given(title=st.text(max_size=40), text=st.text(max_size=120))
def test_any_passage_gives_questions_that_are_one_line_of_printable_utf8(title: str, text: str) -> None:
    questions = draw_questions([passage(title, text), passage("json", "")], count=12)
    for question in questions:
        assert question.isprintable()
        question.encode()


def test_nul_bytes_and_line_breaks_vanish_and_other_scripts_stay(tmp_path: Path) -> None:
    questions = draw_questions([passage("Größe\0 der 表\n\tLücke \ud800", "")], count=1)
    path = write_input_data(tmp_path / "in.json", questions, RETRIEVE, stream=True, max_tokens=None)
    [item] = json.loads(path.read_text(encoding="utf-8"))["data"]
    assert "Größe der 表 Lücke" in item["text_input"][0]


def test_a_batched_model_gets_the_question_alone(tmp_path: Path) -> None:
    path = write_input_data(tmp_path / "in.json", ['What is "json"?', "b"], RETRIEVE, stream=True, max_tokens=5)
    assert json.loads(path.read_bytes()) == {"data": [{"text_input": ['What is "json"?']}, {"text_input": ["b"]}]}


def test_a_model_that_generates_gets_its_options_too(tmp_path: Path) -> None:
    path = write_input_data(tmp_path / "in.json", ["a"], RAG, stream=False, max_tokens=5)
    assert json.loads(path.read_bytes()) == {"data": [{"text_input": ["a"], "stream": [False], "max_tokens": [5]}]}


def test_without_a_limit_the_servers_own_applies(tmp_path: Path) -> None:
    path = write_input_data(tmp_path / "in.json", ["a"], RAG, stream=True, max_tokens=None)
    assert json.loads(path.read_bytes()) == {"data": [{"text_input": ["a"], "stream": [True]}]}


def test_a_file_of_questions_is_read_without_blanks_and_repeats(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes("\ufeffWhat is  json?\r\n\n  \nWhat is json?\nWas heißt das?\0\n".encode())
    assert read_questions(path) == ["What is json?", "Was heißt das?"]


@pytest.mark.parametrize(
    "content", [None, b"", b"\n \n", b"\xff\xfe\x00"], ids=["missing", "empty", "blank", "not UTF-8"]
)
def test_a_file_without_questions_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "q.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadRequestError, match=r"q\.txt"):
        read_questions(path)
