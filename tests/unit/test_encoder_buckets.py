"""Texts come out of their padding as they went in, and what is no padded text is refused."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonrag_backends.embedding.buckets import Buckets, pad, trim
from tritonrag_backends.settings import EncoderSettings
from tritonrag_client.errors import BadRequestError

LENGTHS = st.lists(st.integers(1, 512), min_size=1, unique=True).map(sorted)
TEXTS = st.lists(st.lists(st.integers(0, 30_000), min_size=1, max_size=40), min_size=1, max_size=8)


@settings(deadline=None)
@given(lengths=LENGTHS, max_tokens=st.integers(1, 600), data=st.data())
def test_a_text_fits_the_smallest_bucket_that_holds_it(
    lengths: list[int], max_tokens: int, data: st.DataObject
) -> None:
    buckets = Buckets.parse(",".join(map(str, lengths)), max_tokens=max_tokens)
    tokens = data.draw(st.integers(1, max_tokens))
    assert all(a < b for a, b in pairwise(buckets.lengths))
    assert buckets.longest == max_tokens
    assert buckets.fit(tokens) == min(length for length in buckets.lengths if length >= tokens)


def test_a_text_beyond_the_longest_bucket_is_refused_by_its_tokens() -> None:
    with pytest.raises(BadRequestError, match=r"9 tokens.*at most 8"):
        Buckets.parse("4", max_tokens=8).fit(9)


@pytest.mark.parametrize("text", ["", "a", "16,8", "8,8", "0,8", "-1", "8,,16", "8.5"])
def test_what_is_no_list_of_ascending_lengths_is_refused_by_the_name_of_the_setting(text: str) -> None:
    with pytest.raises(BadRequestError, match="TRITONRAG_ENCODER_BUCKETS"):
        Buckets.parse(text, max_tokens=256)


def test_the_default_buckets_can_be_read() -> None:
    assert Buckets.parse(EncoderSettings().buckets, max_tokens=128).lengths == (16, 32, 64, 128)


@settings(deadline=None)
@given(ids=TEXTS, spare=st.integers(0, 5))
def test_what_was_padded_is_trimmed_to_what_it_was(ids: list[list[int]], spare: int) -> None:
    length = max(map(len, ids)) + spare
    input_ids, attention_mask = pad(ids, length)
    assert input_ids.shape == attention_mask.shape == (len(ids), length)
    assert input_ids.dtype == attention_mask.dtype == np.int32
    assert trim(input_ids, attention_mask) == ids


@settings(deadline=None)
@given(ids=TEXTS, data=st.data())
def test_a_mask_with_any_place_changed_but_at_a_texts_end_is_refused(ids: list[list[int]], data: st.DataObject) -> None:
    input_ids, mask = pad(ids, max(map(len, ids)) + 2)
    row = data.draw(st.integers(0, len(ids) - 1))
    place = data.draw(st.integers(0, mask.shape[1] - 1).filter(lambda p: p not in (len(ids[row]), len(ids[row]) - 1)))
    mask[row, place] = data.draw(st.sampled_from([1 - mask[row, place], 2, -1]))
    with pytest.raises(BadRequestError, match=f"row {row} of attention_mask"):
        trim(input_ids, mask)


def test_a_row_without_a_token_is_refused() -> None:
    zeros = np.zeros((2, 4), np.int32)
    with pytest.raises(BadRequestError, match=r"row 0 .*at least one token"):
        trim(zeros, zeros)


@pytest.mark.parametrize("shapes", [((2, 4), (2, 5)), ((8,), (8,)), ((1, 2, 4), (1, 2, 4))])
def test_shapes_that_do_not_fit_each_other_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(BadRequestError, match="shape"):
        trim(*(np.ones(shape, np.int32) for shape in shapes))
