"""JSON Lines: every line becomes its passage exactly, or ends the reading with a message that finds it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents_strategies import metadata, not_empty, text
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.jsonl import read_jsonl
from tritonrag_export.documents.model import DocumentPassages


def written(path: Path, *lines: bytes | str | dict[str, object]) -> Path:
    data = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(data))
    return path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("corpus.jsonl")


def message(path: Path, **options: int) -> str:
    with pytest.raises(BadRequestError) as caught:
        list(read_jsonl(path, **options))
    return caught.value.message


def test_a_line_with_every_key_is_taken_as_it_is(file: Path) -> None:
    line = {
        "id": "42",
        "text": "Straße",
        "title": "T",
        "uri": "https://x/y",
        "tenant": "acme",
        "metadata": {"n": [1, {"a": None}]},
    }
    (unit,) = read_jsonl(written(file, {**line, "start": 10, "end": 16}))
    passage = Passage(text="Straße", title="T", uri="https://x/y", start=10, end=16, metadata={"n": [1, {"a": None}]})
    assert unit == DocumentPassages(id="42", tenant="acme", passages=(passage,))


def test_id_and_text_are_enough(file: Path) -> None:
    (unit,) = read_jsonl(written(file, {"id": 7, "text": "seven"}))
    passage = Passage(text="seven", title="", uri="7", start=0, end=5)
    assert unit == DocumentPassages(id="7", tenant=None, passages=(passage,))


def test_beirs_corpus_is_read_as_it_is(file: Path) -> None:
    line = {"_id": "MED-10", "title": "Statins", "text": "Recent studies.", "metadata": {"url": "http://x/1"}}
    (unit,) = read_jsonl(written(file, line))
    assert (unit.id, unit.passages[0].uri, unit.passages[0].metadata) == ("MED-10", "MED-10", {"url": "http://x/1"})


def test_a_document_that_is_a_title_alone_is_found_by_it(file: Path) -> None:
    file.write_text('{"_id": "d1", "title": "A title alone", "text": ""}\n')
    (unit,) = read_jsonl(file)
    assert (unit.passages[0].text, unit.passages[0].end) == ("A title alone", 13)


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_passed_over(file: Path) -> None:
    good = b'{"id": "%d", "text": "x"}'
    path = written(file, b"\xef\xbb\xbf" + good % 1 + b"\r", b"", b"  \t\r", good % 2 + b"\r", b"")
    assert [unit.id for unit in read_jsonl(path)] == ["1", "2"]


def test_an_empty_file_holds_no_passages(file: Path) -> None:
    assert list(read_jsonl(written(file, ""))) == []


LINE_SEPARATORS = "\u2028\u2029\x85\x0b\x0c"


def test_only_newlines_end_a_line(file: Path) -> None:
    path = file
    path.write_text(json.dumps({"id": "1", "text": f"a{LINE_SEPARATORS}b"}, ensure_ascii=False))
    (unit,) = read_jsonl(path)
    assert unit.passages[0].text == f"a{LINE_SEPARATORS}b"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "1", "text": "x"', "not JSON: Expecting ',' delimiter at character 24, its end"),
        ("{'id': 1}", "not JSON: Expecting property name enclosed in double quotes at character 2, where \"'id': 1}\" stands"),
        ("[1]", "it is a list, expected an object"),
        ('"id"', 'it is "id", expected an object'),
        (b'{"id": "\xff"}', "byte 9 is 0xff, expected UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"id": 1, "text": "x", "start": ' + "9" * 5000, "a number has thousands of digits"),
        ({"text": "x"}, "id is missing, expected a string or a whole number"),
        ({"id": 1, "_id": 1, "text": "x"}, "id is 1 and _id is 1, expected one of the two"),
        ({"id": "", "text": "x"}, 'id is "", expected a string that is not empty'),
        ({"_id": True, "text": "x"}, "_id is true, expected a string or a whole number"),
        ({"id": 1.5, "text": "x"}, "id is 1.5, expected a string or a whole number"),
        ({"id": None, "text": "x"}, "id is null"),
        ({"id": "a\0", "text": "x"}, r'id is "a\u0000", expected a string without NUL'),
        ({"id": 1}, "text is missing, expected a string"),
        ({"id": 1, "text": " \n\t"}, r'text is " \n\t" and there is no title, expected one that is not blank'),
        ({"id": 1, "text": ["x"]}, "text is a list, expected a string"),
        ({"id": 1, "text": "\ud800" + "x" * 100}, r'text is "\ud800xxxxx'),
        ({"id": 1, "text": float("nan")}, "text is NaN, expected a string"),
        ({"id": 1, "text": "x", "title": None}, "title is null, expected a string"),
        ({"id": 1, "text": "x", "uri": ""}, 'uri is "", expected a string that is not empty'),
        ({"id": 1, "text": "x", "tenant": ""}, 'tenant is "", expected a string that is not empty'),
        ({"id": 1, "text": "x", "tenant": None}, "tenant is null, expected a string"),
        ({"id": 1, "text": "x", "metadata": None}, "metadata is null, expected an object"),
        ({"id": 1, "text": "x", "metadata": {"a": float("inf")}}, "metadata.a is Infinity, expected a finite number"),
        ({"id": 1, "text": "x", "metadata": {"a": 2**64}}, "metadata.a is 18446744073709551616, expected a whole number of 64"),
        ({"id": 1, "text": "x", "metadata": {"tenant": "acme"}}, 'metadata.tenant is "acme", but metadata sets no tenant'),
        ({"id": 1, "text": "x", "start": 1}, "start is 1, expected start and end both or none"),
        ({"id": 1, "text": "x", "end": 1}, "end is 1, expected start and end both or none"),
        ({"id": 1, "text": "x", "start": -1, "end": 1}, "start is -1, expected a whole number from 0"),
        ({"id": 1, "text": "x", "start": 5, "end": 4}, "end is 4, expected a whole number from 5"),
        ({"id": 1, "text": "x", "start": 0, "end": 1.0}, "end is 1.0, expected a whole number"),
        ({"id": 1, "text": "x", "start": False, "end": True}, "start is false, expected a whole number"),
        ({"id": 1, "text": "x", "Tenant": "acme"}, '"Tenant" is an unknown key, with "acme", expected one of id _id text'),
        ('{"id": 1, "text": "x", "tenant": "a", "tenant": "b"}', 'the key "tenant" stands twice in one object, with "b"'),
        ('{"id": 1, "text": "x", "metadata": {"a": {"b": 1, "b": 2}}}', 'the key "b" stands twice'),
    ],
)  # fmt: skip
def test_a_line_that_can_not_be_taken_is_found_by_file_line_key_and_value(file: Path, line: object, told: str) -> None:
    found = message(written(file, {"id": "good", "text": "x"}, "", line))
    assert found.startswith("corpus.jsonl line 3: ")
    assert told in found
    assert found.endswith("; correct the line or leave it out")
    found.encode()


def test_what_stands_before_the_line_was_given_already(file: Path) -> None:
    reading = read_jsonl(written(file, {"id": "good", "text": "x"}, "bad"))
    assert next(reading).id == "good"
    with pytest.raises(BadRequestError, match="line 2"):
        next(reading)


def test_a_line_over_the_limit_is_refused_before_the_rest_of_it_is_read(file: Path) -> None:
    line = json.dumps({"id": 1, "text": "x" * 100})
    assert message(written(file, line), max_line_bytes=len(line) - 1) == (
        f"corpus.jsonl line 1: over the limit of {len(line) - 1} bytes; cut its text into passages"
    )
    assert len(list(read_jsonl(file, max_line_bytes=len(line)))) == 1


def test_a_missing_file_a_folder_and_a_pipe_are_clear_errors(file: Path) -> None:
    assert message(file) == "corpus.jsonl can't be read: No such file or directory; check the file and its permissions"
    file.mkdir()
    assert "is not a regular file" in message(file)
    file.rmdir()
    os.mkfifo(file)
    assert "is not a regular file" in message(file)


def test_a_side_car_is_refused_because_it_might_hold_a_tenant(file: Path) -> None:
    written(file, {"id": 1, "text": "x"})
    Path("corpus.jsonl.meta.json").write_text('{"tenant": "acme"}')
    assert (
        "has a side-car, corpus.jsonl.meta.json, but JSONL takes none; put tenant and metadata into its lines"
        in message(file)
    )


def test_a_long_file_is_read_line_by_line(file: Path) -> None:
    written(file, *({"id": i, "text": "x" * 1000} for i in range(3000)), "bad")
    reading: Iterator[DocumentPassages] = read_jsonl(file)
    assert [next(reading).id for _ in range(3000)] == [str(i) for i in range(3000)]


spans = st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)).map(lambda span: (span[0], span[0] + span[1]))


@st.composite
def units(draw: st.DrawFn) -> DocumentPassages:
    start, end = draw(spans)
    body = draw(text.filter(lambda text: text.strip() != ""))
    passage = Passage(text=body, title=draw(text), uri=draw(not_empty), start=start, end=end, metadata=draw(metadata))
    return DocumentPassages(id=draw(not_empty), tenant=draw(st.none() | not_empty), passages=(passage,))


def as_line(unit: DocumentPassages) -> dict[str, object]:
    tenant = {} if unit.tenant is None else {"tenant": unit.tenant}
    return {"id": unit.id, **tenant, **json.loads(unit.passages[0].to_json())}


@settings(deadline=None)
@given(written_units=st.lists(units(), max_size=4), escaped=st.booleans())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, written_units: list[DocumentPassages], escaped: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.jsonl"
    path.write_bytes(
        b"".join(json.dumps(as_line(unit), ensure_ascii=escaped).encode() + b"\n" for unit in written_units)
    )
    assert list(read_jsonl(path)) == written_units


json_bits = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"', '"id"', '"text"', '"x"', "1", "-", "NaN", "1e999", "true", "null", "\\", "\\u0000",
     "\\ud800", "\n", " ", "\x00", "é"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(data=st.lists(json_bits, max_size=25).map(lambda bits: "".join(bits).encode()) | st.binary(max_size=40))
def test_any_bytes_end_in_passages_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    path.write_bytes(data)
    try:
        for unit in read_jsonl(path):
            unit.passages[0].to_json().decode()
    except BadRequestError as error:
        assert str(path) in error.message  # noqa: PT017  # either way is right
        assert " line " in error.message  # noqa: PT017
