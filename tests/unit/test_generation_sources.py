"""Sources are the passages as they came, numbered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.sources import parse_passages, splice_sources, without_padding
from tritonrag_client.contract import NO_PASSAGE, Passage, Source, decode_sources, encode_sources
from tritonrag_client.errors import BadRequestError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
passages = st.builds(
    Passage,
    text=texts,
    title=texts,
    uri=texts,
    start=st.integers(0, 2**40),
    end=st.integers(0, 2**40),
    metadata=st.dictionaries(texts, texts | st.integers() | st.none(), max_size=3),
)


@given(st.lists(passages, max_size=5))
def test_splicing_gives_the_same_json_as_encoding(given_passages: list[Passage]) -> None:
    ids = np.arange(len(given_passages), dtype=np.int64) + 7
    scores = np.linspace(0.9, 0.1, len(given_passages), dtype=np.float32)
    spliced = splice_sources(ids, scores, [passage.to_json() for passage in given_passages])
    sources = [
        Source(n=n, passage_id=int(ids[n - 1]), score=float(scores[n - 1]), passage=passage)
        for n, passage in enumerate(given_passages, start=1)
    ]
    assert spliced == encode_sources(sources)
    assert [source.passage for source in decode_sources(spliced)] == given_passages


def test_later_responses_carry_no_sources() -> None:
    assert decode_sources(b"") == []


def test_padding_is_dropped() -> None:
    ids, scores, kept = without_padding(
        np.array([[5, NO_PASSAGE]]), np.array([[0.5, 0.0]], np.float32), np.array([[b"x", b""]], np.object_)
    )
    assert (ids.tolist(), scores.tolist(), kept) == ([5], [0.5], [b"x"])


def test_unequal_lengths_are_refused_with_their_numbers() -> None:
    with pytest.raises(BadRequestError, match="1, 2 and 1"):
        without_padding(np.array([1]), np.array([0.1, 0.2], np.float32), np.array([b"x"], np.object_))


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(BadRequestError, match="nan"):
        without_padding(np.array([1]), np.array([np.nan], np.float32), np.array([b"x"], np.object_))


GOOD = b'{"text":"t","title":"","uri":"","start":0,"end":1,"metadata":{}}'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'{"text": "only"}',
        b"\xff",
        b'"text"',
        b" " + GOOD,
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD.replace(b'"t"', b"7"),
        GOOD.replace(b'"t"', b"null"),
        GOOD.replace(b'"t"', b'"\\ud800"'),
        GOOD.replace(b'"t"', b'"\xed\xa0\x80"'),
        GOOD.replace(b":0", b":true"),
        GOOD.replace(b":0", b':"0"'),
        GOOD.replace(b":0", b":" + b"7" * 5000),
        GOOD.replace(b"{}", b"[]"),
        GOOD.replace(b"{}", b'{"a":NaN}'),
        GOOD.replace(b"{}", b'{"a":"\\udfff"}'),
        GOOD.replace(b"{}", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ],
    ids=lambda raw: repr(raw[:70]),
)
def test_what_is_no_passage_is_refused_by_position(raw: bytes) -> None:
    good = Passage(text="t", title="", uri="", start=0, end=1).to_json()
    with pytest.raises(BadRequestError, match=r"passages\[1\]"):
        parse_passages([good, raw])


def test_escapes_that_are_text_are_read() -> None:
    (passage,) = parse_passages([GOOD.replace(b'"t"', b'"\\ud83d\\ude00 \\\\ud800"')])
    assert passage.text == "\U0001f600 \\ud800"
