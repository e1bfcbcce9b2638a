"""Citations name sources that exist, however the answer is cut into pieces; code keeps its subscripts."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tritonrag_backends.prompting.citations import Citations

LABELS = (3, 1, 2)  # label 1 in the prompt is source 3, ...

CITING = [
    "[1]",
    "[2]",
    "[9]",
    "[1, 3]",
    "[1-3]",
    "[0]",
    "[[1]]",
    "x[1]",
    "[Passage 2]",
    "[pass",
    "[1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9 1",
]
OTHERS = ["[", "]", "(", ")", " ", "\n", "`", "```", ".", ",", "-", "_", "\u2019", "1", "a", "word", "é", "本"]
snippets = st.sampled_from(CITING + OTHERS)
texts = st.lists(snippets | st.text(max_size=3), max_size=30).map("".join)


def rewritten(*pieces: str, labels: tuple[int, ...] = LABELS) -> tuple[str, Citations]:
    citations = Citations(labels)
    return "".join(map(citations.push, pieces)) + citations.flush(), citations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is so [1].", "It is so [3]."),
        ("in place[1].", "in place[3]."),
        ("Both [1][2], or [1, 2], or [1; 2], or [ 1 ].", "Both [3][1], or [3][1], or [3][1], or [3]."),
        ("All of them [1-3].", "All of them [3][1][2]."),
        ("As said [Passage 2], [source 1].", "As said [1], [3]."),
        ("(see there)[1], the 1990s[1], in 2019[1]", "(see there)[3], the 1990s[3], in 2019[3]"),
        ("don\u2019t[1], \u201cso\u201d[1], end.[1]", "don\u2019t[3], \u201cso\u201d[3], end.[3]"),
        ("日本語[1]。", "日本語[3]。"),
        ("use `heapq`[1].", "use `heapq`[3]."),
    ],
)
def test_labels_become_the_numbers_of_their_sources(text: str, expected: str) -> None:
    assert rewritten(text)[0] == expected


@pytest.mark.parametrize(
    ("text", "expected", "removed"),
    [
        ("It is so [7].", "It is so.", 1),
        ("It is so[7].", "It is so.", 1),
        ("It is so [1, 7, 8].", "It is so [3].", 2),
        ("It is so [7][1].", "It is so[3].", 1),
        ("It is so [2-5].", "It is so [1][2].", 2),
    ],
)
def test_what_names_no_label_goes_with_the_space_before_it_and_is_counted(
    text: str, expected: str, removed: int
) -> None:
    after, citations = rewritten(text)
    assert (after, citations.removed) == (expected, removed)


@pytest.mark.parametrize(
    "text",
    [
        "x[1] and rows_2[1] and sys.argv[1] and f(x)[1] and a[0][1] and a[i][1]",
        "`args[1]` and ``a ` [1]``",
        "```python\nargs = [1]\n```",
        "- ```\n  [1]\n  ```",
        "argv[0], the list [0, 1], the year [2024], [1.5], [^1], [01]",
        "[a], [ ], [], [1 or 2], [passages]",
    ],
)
def test_code_subscripts_and_other_brackets_pass_unchanged(text: str) -> None:
    after, citations = rewritten(text)
    assert after == text
    assert (citations.removed, citations.kept, citations.cited) == (0, 0, frozenset())


def test_code_ends_where_markdown_ends_it() -> None:
    text = "```\n[1]\n````not the end\n[1]\n```\n[1] a ` that is never closed [1]\n[1]"
    assert rewritten(text)[0] == "```\n[1]\n````not the end\n[1]\n```\n[3] a ` that is never closed [1]\n[3]"


def test_it_tells_what_was_cited_and_how_often() -> None:
    _, citations = rewritten("One [1]. Two [1, 2]. Three [9].")
    assert (citations.cited, citations.kept, citations.removed) == (frozenset({3, 1}), 3, 1)


def test_with_no_passages_nothing_is_cited() -> None:
    assert rewritten("It is so [1].", labels=())[0] == "It is so."


def test_text_that_is_no_citation_is_not_waited_for() -> None:
    citations = Citations(LABELS)
    assert citations.push("The list [") == "The list"
    assert citations.push("a") == " [a"
    assert citations.push("`[1") == "`[1"


@given(texts, st.lists(st.integers(0, 200), max_size=20))
@example("is [1", [4])
def test_any_cut_gives_the_same(text: str, cuts: list[int]) -> None:
    whole, known = rewritten(text)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieced, citations = rewritten(*(text[a:b] for a, b in pairwise(bounds)))
    assert pieced == whole
    assert (citations.cited, citations.kept, citations.removed) == (known.cited, known.kept, known.removed)


@given(texts)
def test_little_is_ever_held_back(text: str) -> None:
    citations = Citations((1, 2, 3))
    sent = 0
    for length, character in enumerate(text, start=1):
        sent += len(citations.push(character))
        if not citations.removed and not re.search(r"\[ ?[\dp,s]", text, re.IGNORECASE):
            assert length - sent <= 2
    assert len(citations.flush()) <= 41


@given(
    st.lists(st.sampled_from(["[1]", "[2]", "[3, 4]", "[5]", "[4-6]", " ", "so ", "it. ", "\n"]), max_size=20).map(
        "".join
    )
)
def test_only_what_exists_is_cited(text: str) -> None:
    after, citations = rewritten(text)
    numbers = {int(number) for number in re.findall(r"\[(\d+)\]", after)}
    assert numbers == citations.cited
    assert numbers <= set(LABELS)


@given(texts)
def test_text_without_brackets_is_left_alone(text: str) -> None:
    text = text.replace("[", "")
    assert rewritten(text)[0] == text
