"""Labelled questions are read strictly, and the figures count what they say."""

import json
import re
from pathlib import Path

import pytest

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.extractive import Result, StageTimes, figures, read_constants
from tritonrag_perf.labelled import LabelledQuestion, read_labelled

QUESTIONS = Path(__file__).parents[2] / "perf" / "questions" / "pydoc.jsonl"
TIMES = StageTimes(candidates_ms=1, embedding_ms=2, choosing_ms=3, embedded=7)
GOOD = {"question": "Which is largest?", "half": "tuning", "answer": ["n largest"], "sources": ["heapq"]}


def result(*sentences: tuple[str, str], answerable: bool = True) -> Result:
    label = LabelledQuestion(
        question="Which is largest?",
        half="tuning",
        answer=(re.compile("n largest", re.IGNORECASE),) if answerable else (),
        sources=frozenset({"heapq"} if answerable else ()),
    )
    return Result(label=label, sentences=sentences, reachable=True, times=TIMES)


def test_both_halves_hold_answerable_and_unanswerable_questions_and_none_comes_twice() -> None:
    labels = read_labelled(QUESTIONS)
    assert len({label.question.casefold() for label in labels}) == len(labels)
    for half in ("tuning", "held-out"):
        answerable = [label.answerable for label in labels if label.half == half]
        assert answerable.count(True) >= 30
        assert answerable.count(False) >= 20


@pytest.mark.parametrize(
    "change", [{"half": "test"}, {"answer": ["("]}, {"answer": []}, {"sources": []}, {"answer": None}, {"answer": [1]}]
)
def test_a_line_that_is_no_labelled_question_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(GOOD | change)}\n")
    with pytest.raises(BadRequestError, match="line 2"):
        read_labelled(path)


def test_a_file_that_is_not_there_is_a_bad_request(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="can't be read"):
        read_labelled(tmp_path / "none.jsonl")


def test_figures_tell_right_answers_from_right_sources() -> None:
    counted = figures(
        [
            result(("Find the N largest.", "heapq"), ("max(s)", "builtins")),
            result(("Find the n largest.", "builtins")),
            result(),
            result(("Anything.", "heapq"), answerable=False),
            result(answerable=False),
        ]
    )
    assert counted["answerable: answered right"] == "2 of 3"
    assert counted["answerable: a right source cited"] == "1 of 3"
    assert counted["answerable: told there is no answer"] == "1 of 3"
    assert counted["unanswerable: told there is no answer"] == "1 of 2"
    assert counted["cited pieces that end as a sentence does"] == "2 of 3"
    assert counted["texts embedded"] == "7.0"


def test_constants_are_set_by_name_and_nothing_else_is_taken() -> None:
    constants = read_constants(["max_candidates=9", "min_cosine=0.5"])
    assert (constants.max_candidates, constants.min_cosine) == (9, 0.5)
    for wrong in ("max_candidate=9", "max_candidates", "max_candidates=many"):
        with pytest.raises(BadRequestError, match=wrong):
            read_constants([wrong])
