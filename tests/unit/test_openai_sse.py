"""Events come out of a stream of bytes the same wherever it is cut, as the WHATWG's specification says."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.openai.sse import Event, SseError, SseParser

FIELD_TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=12)
LINE_ENDS = st.sampled_from(["\n", "\r", "\r\n"])
LINES = st.one_of(
    FIELD_TEXT.map("data: {}".format),
    FIELD_TEXT.map("data:{}".format),
    FIELD_TEXT.map(": {}".format),
    FIELD_TEXT.map("event: {}".format),
    FIELD_TEXT.map("id: {}".format),
    st.sampled_from(["", "", "data", "retry: 5", "nonsense"]),
)


def parsed(*chunks: bytes) -> list[Event]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def data_of(*chunks: bytes) -> list[str]:
    return [event.data for event in parsed(*chunks)]


def slow_reading(lines: list[str]) -> list[Event]:
    """The specification, word for word, on lines that are split already."""
    events, data, kind = [], "", ""
    for line in lines:
        if not line:
            if data:
                events.append(Event(kind=kind or "message", data=data[:-1]))
            data, kind = "", ""
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            data += value + "\n" if name == "data" else ""
            kind = value if name == "event" else kind
    return events


@given(st.lists(st.tuples(LINES, LINE_ENDS), max_size=12), st.sampled_from(["", "\ufeff"]), st.data())
def test_any_stream_cut_anywhere_is_read_as_the_specification_says(
    lines: list[tuple[str, str]], mark: str, data: st.DataObject
) -> None:
    text = mark + "".join(line + end for line, end in lines)
    stream = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parsed(*pieces) == slow_reading(re.split("\r\n|\r|\n", text.removeprefix("\ufeff"))[:-1])


def test_a_line_end_of_two_characters_may_be_cut_in_two() -> None:
    assert data_of(b"data: a\r", b"\ndata: b\r", b"\n", b"\r", b"\n") == ["a\nb"]


def test_a_lone_cr_ends_a_line_before_the_next_byte_comes() -> None:
    assert data_of(b"data: a\r\r") == ["a"]


def test_a_character_cut_in_two_is_whole_again() -> None:
    whole = "data: é😀\n\n".encode()
    assert data_of(*(whole[at : at + 1] for at in range(len(whole)))) == ["é😀"]


def test_bytes_that_are_no_utf8_are_replaced_and_end_nothing() -> None:
    assert data_of(b"data: a\xffb\n\n") == ["a\ufffdb"]


def test_comments_and_unknown_fields_are_passed_over() -> None:
    assert data_of(b": ping\n\nid: 7\nretry: 10\nfoo: bar\ndata: x\n\n") == ["x"]


def test_one_space_after_the_colon_is_no_data() -> None:
    assert data_of(b"data:x\ndata: x\ndata:  x\n\n") == ["x\nx\n x"]


def test_what_no_empty_line_ends_never_comes_out() -> None:
    assert data_of(b"data: whole\n\ndata: half\n") == ["whole"]


def test_an_events_kind_is_its_own() -> None:
    assert parsed(b"event: error\ndata: x\n\ndata: y\n\n") == [
        Event(kind="error", data="x"),
        Event(kind="message", data="y"),
    ]


@pytest.mark.parametrize("pieces", [[b"data: " + b"x" * 100], [b"x"] * 100, [b"x" * 100 + b"\n"]])
def test_a_line_without_end_is_refused(pieces: list[bytes]) -> None:
    parser = SseParser(max_line_bytes=64)
    with pytest.raises(SseError, match="64 bytes"):
        [parser.feed(piece) for piece in pieces]


def test_an_event_without_end_is_refused() -> None:
    parser = SseParser(max_event_bytes=1000)
    with pytest.raises(SseError, match=r"1,000 bytes"):
        [parser.feed(b"data: 0123456789\n") for _ in range(1000)]


def test_many_small_events_are_not_bounded() -> None:
    parser = SseParser(max_line_bytes=64, max_event_bytes=64)
    assert sum(len(parser.feed(b"data: 0123456789\n\n")) for _ in range(1000)) == 1000
