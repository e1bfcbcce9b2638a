"""Whatever decides what an answer is stands in its key, and nothing can be made to look like something else."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.answer_key import answer_key
from tritonrag_backends.generation.engine import Sampling
from tritonrag_client.contract import Passage, Turn

PASSAGE = Passage(text="t", title="h", uri="u", start=0, end=1, metadata={"a": 1})
ASKED: dict[str, Any] = {
    "question": "q",
    "history": (Turn(role="user", content="x"),),
    "tenant": None,
    "index_version": 1,
    "passages": (PASSAGE, replace(PASSAGE, text="other")),
    "passage_ids": (1, 2),
    "prompt_fingerprint": "f",
    "engine_fingerprint": "e",
    "sampling": Sampling(max_tokens=8),
}
# Few characters, so that parts of one text meet the beginning of another.
TEXTS = st.text(alphabet=st.sampled_from('a",[]\\\x00é\ud83d\ude00😀'), max_size=4)
PASSAGES = st.lists(
    st.builds(
        Passage,
        text=TEXTS,
        title=TEXTS,
        uri=TEXTS,
        start=st.integers(0, 2),
        end=st.integers(0, 2),
        metadata=st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(0, 1), st.booleans(), st.none()), max_size=1),
    ),
    max_size=2,
).map(tuple)
SAMPLINGS = st.builds(
    Sampling,
    max_tokens=st.integers(1, 2),
    temperature=st.sampled_from([0.0, 0.5]),
    top_p=st.sampled_from([None, 0.5]),
    seed=st.sampled_from([None, 0, 1]),
    stop_words=st.lists(TEXTS, max_size=2).map(tuple),
    lora_name=st.one_of(st.none(), TEXTS),
)
QUESTIONS = st.fixed_dictionaries(
    {
        "question": TEXTS,
        "history": st.lists(
            st.builds(Turn, role=st.sampled_from(["user", "assistant"]), content=TEXTS), max_size=2
        ).map(tuple),
        "tenant": st.one_of(st.none(), TEXTS),
        "index_version": st.one_of(st.none(), st.integers(0, 1)),
        "passages": PASSAGES,
        "passage_ids": st.lists(st.integers(0, 1), max_size=2).map(tuple),
        "prompt_fingerprint": TEXTS,
        "engine_fingerprint": TEXTS,
        "sampling": SAMPLINGS,
    }
)


def _written(asked: dict[str, Any]) -> str:
    """Not compared as values: 1 and true would be equal."""
    return repr(sorted(asked.items()))


@given(one=QUESTIONS, other=QUESTIONS)
def test_two_questions_share_a_key_only_if_all_is_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (answer_key(**one) == answer_key(**other)) == (_written(one) == _written(other))


@given(asked=QUESTIONS, data=st.data())
def test_a_change_in_one_part_changes_the_key(asked: dict[str, Any], data: st.DataObject) -> None:
    changed = {**asked, (name := data.draw(st.sampled_from(sorted(asked)))): data.draw(QUESTIONS)[name]}
    assert (answer_key(**asked) == answer_key(**changed)) == (_written(asked) == _written(changed))


@pytest.mark.parametrize(
    "change",
    [
        {"question": "q "},
        {"history": ()},
        {"history": (Turn(role="assistant", content="x"),)},
        {"tenant": ""},
        {"tenant": "blue"},
        {"index_version": None},
        {"index_version": 2},
        {"passages": ASKED["passages"][::-1]},
        {"passages": ASKED["passages"][:1]},
        {"passages": (replace(PASSAGE, metadata={"a": True}), ASKED["passages"][1])},
        {"passage_ids": (2, 1)},
        {"prompt_fingerprint": "g"},
        {"engine_fingerprint": "g"},
        {"prompt_fingerprint": "fe", "engine_fingerprint": ""},
        {"sampling": Sampling(max_tokens=9)},
        {"sampling": Sampling(max_tokens=8, temperature=0.5)},
        {"sampling": Sampling(max_tokens=8, top_p=0.5)},
        {"sampling": Sampling(max_tokens=8, seed=0)},
        {"sampling": Sampling(max_tokens=8, lora_name="a")},
        {"sampling": Sampling(max_tokens=8, stop_words=("ab",))},
        {"sampling": Sampling(max_tokens=8, stop_words=("a", "b"))},
    ],
    ids=repr,
)
def test_what_differs_has_another_key(change: dict[str, Any]) -> None:
    assert answer_key(**{**ASKED, **change}) != answer_key(**ASKED)


def test_keys_stay_the_same_from_process_to_process() -> None:
    """Servers share a Redis: change the version in the key when you change what goes into it."""
    assert answer_key(**ASKED) == "d3e512944e92ccc8c949e305be602a77647f614c22c9ee89741b579532aaf81c"


def test_text_that_is_no_unicode_has_a_key_too() -> None:
    assert len(answer_key(**{**ASKED, "question": "\ud800"})) == 64
