"""Packing: every text once, no row torn, almost no padding."""

import random

from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.embedding.packing import Batch, one_per_row, pack

LENGTHS = st.lists(st.integers(min_value=1, max_value=256), max_size=120)
BUDGETS = st.sampled_from([64, 256, 512, 1000])


def places(batch: Batch, lengths: list[int]) -> list[range]:
    return [range(start, start + lengths[text]) for text, start in zip(batch.texts, batch.starts, strict=True)]


@given(LENGTHS, BUDGETS)
def test_every_text_is_in_exactly_one_batch(lengths: list[int], budget: int) -> None:
    dealt = [text for batch in pack(lengths, batch_tokens=budget) for text in batch.texts]
    assert sorted(dealt) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS)
def test_no_two_texts_share_a_place(lengths: list[int], budget: int) -> None:
    for batch in pack(lengths, batch_tokens=budget):
        filled = [place for text in places(batch, lengths) for place in text]
        assert len(filled) == len(set(filled))
        assert max(filled) < batch.places


@given(LENGTHS, BUDGETS)
def test_no_text_crosses_the_end_of_a_row(lengths: list[int], budget: int) -> None:
    for batch in pack(lengths, batch_tokens=budget):
        for text in places(batch, lengths):
            assert text[0] // batch.row_tokens == text[-1] // batch.row_tokens


@given(LENGTHS, BUDGETS)
def test_a_batch_keeps_its_budget_unless_one_text_alone_exceeds_it(lengths: list[int], budget: int) -> None:
    for batch in pack(lengths, batch_tokens=budget):
        real = sum(lengths[text] for text in batch.texts)
        assert real <= budget or len(batch.texts) == 1


@given(LENGTHS, BUDGETS)
def test_packing_never_computes_more_than_a_padded_batch_would(lengths: list[int], budget: int) -> None:
    for batch in pack(lengths, batch_tokens=budget):
        padded = one_per_row([lengths[text] for text in batch.texts])
        assert batch.places <= padded.places


def test_no_texts_make_no_batch() -> None:
    assert pack([]) == []


def test_a_text_alone_is_a_row_without_padding() -> None:
    assert pack([17]) == [Batch(rows=1, row_tokens=17, texts=(0,), starts=(0,))]


def test_the_usual_mixes_of_questions_compute_at_most_one_twentieth_more_than_they_hold() -> None:
    generator = random.Random(0)
    real = computed = 0
    for texts in (2, 4, 8, 16, 32, 64, 256):
        for _ in range(20):
            lengths = [generator.randint(5, 40) for _ in range(texts)]
            real += sum(lengths)
            computed += sum(batch.places for batch in pack(lengths))
    assert computed <= 1.05 * real


def test_passages_of_mixed_lengths_compute_at_most_one_twentieth_more_than_they_hold() -> None:
    generator = random.Random(1)
    lengths = [generator.randint(60, 256) for _ in range(500)]
    assert sum(batch.places for batch in pack(lengths)) <= 1.05 * sum(lengths)


def test_one_per_row_is_the_ordinary_padded_batch() -> None:
    assert one_per_row([2, 5, 3]) == Batch(rows=3, row_tokens=5, texts=(0, 1, 2), starts=(0, 5, 10))
