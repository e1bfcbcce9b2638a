"""Bytes become clean text, or a reason why not."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_export.documents.errors import ContentError
from tritonrag_export.documents.text import clean, decode, one_line


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_read_whatever_its_form(encoding: str) -> None:
    assert decode("Grüße, 世界 😀".encode(encoding)) == "Grüße, 世界 😀"


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-32-be"])
def test_big_endian_unicode_with_a_mark_is_read(encoding: str) -> None:
    assert decode("\ufeffabc".encode(encoding)) == "abc"


def test_other_encodings_are_guessed() -> None:
    text = "Das schöne Mädchen aus München grüßt herzlich. Äpfel und Öl kosten fünf Franken.\n" * 5
    assert decode(text.encode("latin-1")) == text


def test_a_declared_encoding_is_believed_where_the_bytes_are_not_utf8() -> None:
    assert decode("Привет".encode("koi8-r"), declared="koi8-r") == "Привет"
    assert decode("Привет".encode(), declared="koi8-r") == "Привет"


@pytest.mark.parametrize("declared", ["no-such-encoding", "ascii"])
def test_a_wrong_declaration_ends_in_a_clear_message(declared: str) -> None:
    with pytest.raises(ContentError, match=f"neither UTF-8 nor {declared}.*save it as UTF-8"):
        decode(b"\xe4\xf6\xfc", declared=declared)


def test_a_damaged_character_does_not_spoil_utf8_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert decode("Grüße und schöne Äpfel für München, Öl ".encode() * 4 + b"\xff") == (
            "Grüße und schöne Äpfel für München, Öl " * 4 + "\ufffd"
        )
    assert "1 damaged character" in caplog.text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x7fELF\x00\x00\x01", "binary"),
        ("abc".encode("utf-16-le"), "UTF-16"),
        (b"\xff\xfe\x00", "UTF-16-LE"),
    ],
)
def test_bytes_that_are_no_text_end_in_a_clear_message(data: bytes, reason: str) -> None:
    with pytest.raises(ContentError, match=reason):
        decode(data)


def test_text_full_of_control_characters_is_called_binary() -> None:
    with pytest.raises(ContentError, match="binary file: 8 of its 10"):
        clean("\x01\x02\x03\x04\x05\x06\x07\x08ab")


def test_line_ends_become_newlines_and_marks_go() -> None:
    assert clean("\ufeffa\r\nb\rc\x0cd\u2028e") == "a\nb\nc\nd\ne"


@given(st.text())
def test_no_control_character_comes_through_but_tabs_and_newlines(text: str) -> None:
    try:
        cleaned = clean(text)
    except ContentError:
        return
    assert not any((ord(c) < 32 or 0x7F <= ord(c) < 0xA0) and c not in "\t\n" for c in cleaned)
    cleaned.encode()  # no lone surrogates


@given(st.text(max_size=400))
def test_a_title_is_one_short_line(text: str) -> None:
    line = one_line(text, limit=50)
    assert len(line) <= 50
    assert "\n" not in line


def test_a_long_title_ends_with_an_ellipsis() -> None:
    assert one_line("word " * 100, limit=20) == "word word word word…"
