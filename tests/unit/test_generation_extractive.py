"""The extractive engine picks the sentences that answer, cites them, and keeps to what the request allows."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.candidates import coverage, find_sentences, words_of
from tritonrag_backends.generation.engine import Delta, Prompt, Sampling
from tritonrag_backends.generation.extractive import NO_ANSWER, ExtractiveEngine, ExtractiveOptions
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, UnavailableError

MEDIAN = "The median is the middle value of sorted data. It is robust against outliers."
MEAN = "The mean is the sum of the data divided by the number of points. The median is the middle value of sorted data."
CHEESE = "Cheddar cheese ripens in a cool cellar. It takes nine months at least."


def passage(text: str, title: str = "statistics") -> Passage:
    return Passage(text=text, title=title, uri="u", start=0, end=len(text))


async def embed_words(question: str, sentences: Sequence[str]) -> np.ndarray[Any, Any]:
    """Unit vectors by the words that a text holds: texts with the same words are alike, texts with none in common are not."""
    texts = [question, *sentences]
    vectors = np.zeros((len(texts), 4096), np.float32)
    for row, text in enumerate(texts):
        for word in text.casefold().replace("?", " ").replace(".", " ").split():
            vectors[row, zlib.crc32(word.encode()) % 4096] += 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


async def answer(question: str, *texts: str, embed: Any = embed_words, **sampling: Any) -> list[Delta]:
    prompt = Prompt(question=question, passages=tuple(passage(text) for text in texts))
    engine = ExtractiveEngine(embed)
    return [delta async for delta in engine.generate(prompt, Sampling(**{"max_tokens": 100, **sampling}))]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_the_sentence_that_answers_comes_first_with_its_source() -> None:
    deltas = await answer("What is the median of sorted data?", CHEESE, MEDIAN)
    assert text_of(deltas).startswith("The median is the middle value of sorted data. [2]")
    assert [delta.finish_reason for delta in deltas][-1] == "stop"


async def test_a_sentence_that_two_passages_hold_is_said_once() -> None:
    text = text_of(await answer("What is the median of sorted data?", MEDIAN, MEAN))
    assert text.count("The median is the middle value") == 1


async def test_passages_that_do_not_answer_give_the_plain_no_answer() -> None:
    assert text_of(await answer("Who painted the ceiling?", CHEESE)) == NO_ANSWER


async def test_no_passages_give_the_plain_no_answer() -> None:
    (delta,) = await answer("What is the median?")
    assert delta == Delta(text=NO_ANSWER, finish_reason="stop")


async def test_a_failing_embedder_degrades_to_words_and_says_so() -> None:
    async def unavailable(_question: str, sentences: Sequence[str]) -> np.ndarray[Any, Any]:
        raise UnavailableError(f"no embedder for {len(sentences)} sentences")

    deltas = await answer("What is the median of sorted data?", CHEESE, MEDIAN, embed=unavailable)
    assert text_of(deltas) == "The median is the middle value of sorted data. [2]"
    assert "unavailable" in deltas[0].degraded


async def test_an_adapter_is_refused_rather_than_ignored() -> None:
    with pytest.raises(BadRequestError, match="'x'"):
        await answer("What?", MEDIAN, lora_name="x")


async def test_sampling_changes_nothing_because_the_engine_is_deterministic() -> None:
    plain = await answer("What is the median of sorted data?", MEDIAN, MEAN)
    assert plain == await answer("What is the median of sorted data?", MEDIAN, MEAN, temperature=1.5, top_p=0.2, seed=3)


@pytest.mark.parametrize("max_tokens", range(1, 12))
async def test_max_tokens_counts_words_and_keeps_the_citation(max_tokens: int) -> None:
    whole = text_of(await answer("What is the median of sorted data?", MEDIAN))
    deltas = await answer("What is the median of sorted data?", MEDIAN, max_tokens=max_tokens)
    short = text_of(deltas)
    assert [word.group() for word in words_of(short)] == [word.group() for word in words_of(whole)][:max_tokens]
    assert short.endswith("[1]")
    assert deltas[-1].finish_reason == ("length" if len(words_of(whole)) > max_tokens else "stop")


@pytest.mark.parametrize("word", ["middle", " [1]", "The", "value of"])
async def test_the_answer_ends_before_the_first_stop_word(word: str) -> None:
    whole = text_of(await answer("What is the median of sorted data?", MEDIAN))
    deltas = await answer("What is the median of sorted data?", MEDIAN, stop_words=("never there", word))
    assert text_of(deltas) == whole[: whole.index(word)]
    assert deltas[-1].finish_reason == "stop"


@given(st.text(max_size=40), st.lists(st.text(max_size=80), max_size=4))
async def test_any_text_ends_in_exactly_one_finish_reason(question: str, texts: list[str]) -> None:
    deltas = await answer(question, *texts)
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]


def test_candidates_are_folded_unique_and_in_passage_order() -> None:
    found = find_sentences([passage("The median\nis the  middle value."), passage(MEAN), passage(MEDIAN)])
    assert [(sentence.text, sentence.source) for sentence in found] == [
        ("The median is the middle value.", 1),
        ("The mean is the sum of the data divided by the number of points.", 2),
        ("The median is the middle value of sorted data.", 2),
        ("It is robust against outliers.", 3),
    ]


@pytest.mark.parametrize(
    "code",
    [
        "statistics.median(data, /, *, key=None)",
        ">>> median([1, 3, 5]) is the middle value",
        "with median() as value:",
        ":param data: the numbers of which we want the median",
        "| median | the middle value of sorted data |",
        "value = median(data) if data else default",
    ],
)
def test_code_is_no_candidate_where_there_is_prose(code: str) -> None:
    found = find_sentences([passage(f"{code}\n\nReturn the median of `data` (see mean()).")])
    assert [sentence.text for sentence in found] == ["Return the median of `data` (see mean())."]


def test_prose_without_a_full_stop_is_a_candidate() -> None:
    found = find_sentences([passage("median(data) -> value\n\nreturns the middle value of sorted data")])
    assert [sentence.text for sentence in found] == ["returns the middle value of sorted data"]


def test_passages_without_prose_still_give_what_they_have() -> None:
    found = find_sentences([passage("statistics.median(data, key=None)\n\nx = 1")])
    assert [sentence.text for sentence in found] == ["statistics.median(data, key=None)"]


def test_a_sentence_that_would_read_as_a_citation_is_left_out() -> None:
    assert find_sentences([passage("As was shown in [2] the median is robust.")]) == []


def test_candidates_need_no_spaces_between_words() -> None:
    found = find_sentences([passage("中位数是排序后数据的中间值。它对异常值稳健。")])
    assert [sentence.text for sentence in found] == ["中位数是排序后数据的中间值。", "它对异常值稳健。"]
    assert coverage("什么是中位数", [sentence.text for sentence in found]).argmax() == 0


@given(st.lists(st.text(alphabet="ab.,(=[1]_ \n>é。", max_size=60), max_size=4))
def test_every_candidate_stands_in_its_passage_once(texts: list[str]) -> None:
    found = find_sentences([passage(text) for text in texts])
    assert len({sentence.text for sentence in found}) == len(found)
    for sentence in found:
        assert sentence.text in " ".join(texts[sentence.source - 1][sentence.start :].split())


def test_a_megabyte_without_a_space_is_read_in_linear_time() -> None:
    assert len(find_sentences([passage("a" + "," * 1_000_000 + "(b c")])) == 1


async def test_only_the_most_promising_sentences_are_embedded() -> None:
    seen: list[str] = []

    async def embed(question: str, sentences: Sequence[str]) -> np.ndarray[Any, Any]:
        seen.extend([question, *sentences])
        return await embed_words(question, sentences)

    prompt = Prompt(question="cheese cellar", passages=(passage(MEAN), passage(CHEESE)))
    engine = ExtractiveEngine(embed, ExtractiveOptions(max_candidates=1))
    assert [delta async for delta in engine.generate(prompt, Sampling(max_tokens=100))]
    assert seen == ["cheese cellar", "statistics\nCheddar cheese ripens in a cool cellar."]


async def test_of_sentences_that_are_alike_the_one_that_stands_first_is_preferred() -> None:
    first, later = "Values have a median here.", "Here have values a median."
    prompt = Prompt(question="median of values", passages=(passage(f"{first} {later}"),))
    engine = ExtractiveEngine(embed_words, ExtractiveOptions(max_sentences=1, min_cosine=0))
    (delta,) = [delta async for delta in engine.generate(prompt, Sampling(max_tokens=100))]
    assert delta.text == f"{first} [1]"


async def test_shared_words_alone_make_no_answer() -> None:
    async def unlike(_question: str, sentences: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.eye(1 + len(sentences), dtype=np.float32)

    assert text_of(await answer("What is the median of sorted data?", MEDIAN, embed=unlike)) == NO_ANSWER


def test_coverage_sees_through_case_plural_and_identifiers() -> None:
    texts = ["n_largest Elements", "smallest element", "nothing here"]
    whole, part, none = coverage("largest element n", texts)
    assert whole == pytest.approx(1)
    assert 0 < part < 1
    assert none == 0


def test_coverage_weighs_rare_words_more() -> None:
    texts = ["the data of heapq", "the data", "the data again", "nothing"]
    whole, common, *_ = coverage("the data heapq", texts)
    assert whole == pytest.approx(1)
    assert common < 0.5
    assert coverage("???", texts).tolist() == [0, 0, 0, 0]


def test_a_line_that_only_leads_to_the_next_is_no_candidate() -> None:
    found = find_sentences([passage("It is the same as writing this:\n\n    x = 1\n\nThe name is bound at once.")])
    assert [sentence.text for sentence in found] == ["The name is bound at once."]
