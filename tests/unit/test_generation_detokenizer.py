"""Ids become text as they come: never half a character, and together what decoding all at once gives."""

from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tritonrag_backends.generation.detokenizer import Detokenizer


def byte_level() -> Tokenizer:
    """Every byte is a token, as in the vocabularies of GPT-2's kind."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: number for number, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentence_piece() -> Tokenizer:
    """Words with their blank before them, and bytes for what is no word, as in Llama 2's vocabulary."""
    words = ["<unk>", "▁the", "▁end", "ing", "▁", "a", "."]
    vocabulary = {word: number for number, word in enumerate([*words, *(f"<0x{byte:02X}>" for byte in range(256))])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


BYTE_LEVEL, SENTENCE_PIECE = byte_level(), sentence_piece()


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids)))


def stream(tokenizer: Tokenizer, pieces: Sequence[Sequence[int]]) -> list[str]:
    words = Detokenizer(partial(decode, tokenizer))
    return [*(words.push(piece) for piece in pieces), words.flush()]


def cut(ids: Sequence[int], sizes: Sequence[int]) -> list[Sequence[int]]:
    pieces, rest = [], list(ids)
    for size in [*sizes, len(rest)]:
        pieces.append(rest[:size])
        rest = rest[size:]
    return [piece for piece in pieces if piece]


@given(text=st.text(max_size=40), sizes=st.lists(st.integers(1, 7), max_size=40))
def test_bytes_of_any_text_come_out_as_whole_characters(text: str, sizes: list[int]) -> None:
    ids = BYTE_LEVEL.encode(text).ids
    pieces = stream(BYTE_LEVEL, cut(ids, sizes))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(ids=st.lists(st.integers(0, 255), max_size=40), sizes=st.lists(st.integers(1, 7), max_size=40))
def test_bytes_that_are_no_text_come_out_as_decoding_them_at_once_gives_them(ids: list[int], sizes: list[int]) -> None:
    assert "".join(stream(BYTE_LEVEL, cut(ids, sizes))) == decode(BYTE_LEVEL, ids)


@given(ids=st.lists(st.sampled_from([1, 2, 3, 4, 5, 6]), max_size=30), sizes=st.lists(st.integers(1, 4), max_size=30))
def test_blanks_between_words_stay_and_the_first_one_goes(ids: list[int], sizes: list[int]) -> None:
    assert "".join(stream(SENTENCE_PIECE, cut(ids, sizes))) == decode(SENTENCE_PIECE, ids)


def test_a_character_of_several_byte_tokens_waits_for_its_last() -> None:
    world = [7 + byte for byte in "世".encode()]
    assert stream(SENTENCE_PIECE, [[1], *([number] for number in world), [2]]) == ["the", "", "", "世", " end", ""]


def test_half_a_character_at_the_end_is_told_as_such() -> None:
    assert stream(BYTE_LEVEL, [BYTE_LEVEL.encode("é").ids[:1]]) == ["", "\ufffd"]


@pytest.mark.parametrize("count", [300])
def test_bytes_that_never_become_a_character_do_not_pile_up(count: int) -> None:
    (first,) = BYTE_LEVEL.encode("é").ids[:1]
    words = Detokenizer(partial(decode, BYTE_LEVEL))
    passed = "".join(words.push([first]) for _ in range(count))
    assert len(passed) >= count - 3
