"""The encoder on the real model: the vectors that its authors' implementation gives, in any company."""

import json
from pathlib import Path

import numpy as np
import pytest

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_client.errors import BadRequestError

GOLDEN = Path(__file__).parents[1] / "golden"
TEXTS: list[str] = json.loads((GOLDEN / "minilm_texts.json").read_text(encoding="utf-8"))
VECTORS = np.load(GOLDEN / "minilm_vectors.npy", allow_pickle=False)


@pytest.fixture(scope="module")
def exact(embedder_dir: Path) -> Encoder:
    return Encoder.open(embedder_dir, precision="fp32")


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(axis=1)


def test_fp32_gives_the_vectors_of_transformers_and_torch(exact: Encoder) -> None:
    assert np.abs(exact.encode(TEXTS).vectors - VECTORS).max() < 2e-5  # 3.5e-7 on AVX-512


def test_int8_stays_close_to_them(encoder: Encoder) -> None:
    close = cosines(encoder.encode(TEXTS).vectors, VECTORS)
    assert close.min() > 0.985  # 0.993
    assert close.mean() > 0.995  # 0.998


def test_in_fp32_a_text_has_the_same_vector_alone_and_in_company(exact: Encoder) -> None:
    alone = np.concatenate([exact.encode([text]).vectors for text in TEXTS])
    assert np.abs(alone - exact.encode(TEXTS).vectors).max() < 1e-6


def test_in_int8_a_text_has_the_same_vector_alone_and_in_company_up_to_rounding(encoder: Encoder) -> None:
    alone = np.concatenate([encoder.encode([text]).vectors for text in TEXTS])
    assert (
        cosines(alone, encoder.encode(TEXTS).vectors).min() > 0.999
    )  # 0.9996; with one scale a call, as ONNX Runtime quantises, 0.954


def test_the_same_call_again_gives_the_same_bytes(encoder: Encoder) -> None:
    assert encoder.encode(TEXTS).vectors.tobytes() == encoder.encode(TEXTS).vectors.tobytes()


def test_vectors_come_in_the_order_of_the_texts(exact: Encoder) -> None:
    forwards, backwards = exact.encode(TEXTS).vectors, exact.encode(TEXTS[::-1]).vectors
    assert np.abs(forwards - backwards[::-1]).max() < 1e-6


def test_vectors_are_contiguous_fp32_of_unit_length(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS).vectors
    assert vectors.shape == (len(TEXTS), encoder.dim)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5


def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    nothing = encoder.encode([])
    assert nothing.vectors.shape == (0, encoder.dim)
    assert (nothing.real_tokens, nothing.computed_tokens, nothing.truncated) == (0, 0, 0)


def test_tokens_are_counted_with_the_special_ones(encoder: Encoder) -> None:
    embedded = encoder.encode(["hello world", ""])
    assert embedded.real_tokens == 4 + 2
    assert embedded.computed_tokens >= embedded.real_tokens


def test_a_text_over_the_limit_is_cut_there_and_counted(encoder: Encoder) -> None:
    embedded = encoder.encode(["word " * 254, "word " * 255])
    assert embedded.truncated == 1
    assert embedded.real_tokens == 2 * encoder.max_tokens == 512


def test_a_text_that_is_no_unicode_is_refused_by_number(encoder: Encoder) -> None:
    with pytest.raises(BadRequestError, match="text 1 holds a lone surrogate at character 2"):
        encoder.encode(["fine", "ab\ud800"])


def test_a_single_str_is_refused_rather_than_read_letter_by_letter(encoder: Encoder) -> None:
    with pytest.raises(TypeError, match="sequence"):
        encoder.encode("hello")


def test_it_tells_what_it_is(encoder: Encoder, exact: Encoder) -> None:
    assert (encoder.name, encoder.dim, encoder.max_tokens) == ("sentence-transformers/all-MiniLM-L6-v2", 384, 256)
    assert encoder.fingerprint == exact.fingerprint  # precision is no part of the vector space


def test_count_tokens_neither_adds_special_tokens_nor_cuts(encoder: Encoder) -> None:
    assert encoder.count_tokens(["", "hello world", "word " * 1000]) == [0, 2, 1000]


def test_token_offsets_are_characters_of_the_text(encoder: Encoder) -> None:
    text = "  Zürich,\t東京 🙂 rivers"
    words = [text[start:end] for start, end in encoder.token_offsets(text)]
    assert words == ["Zürich", ",", "東", "京", "🙂", "rivers"]


def test_token_offsets_agree_with_count_tokens(encoder: Encoder) -> None:
    assert [len(encoder.token_offsets(text)) for text in TEXTS] == encoder.count_tokens(TEXTS)
