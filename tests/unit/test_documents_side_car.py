"""A side-car tells title, tenant and metadata of its document; one that can't be read hides it from all."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonrag_export.documents.errors import UnreadableDocumentError
from tritonrag_export.documents.model import Document
from tritonrag_export.documents.reading import read_document


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text("---\ntitle: Front\nlang: en\nyear: 2001\nauthor: {name: Ada, born: 1815}\n---\n# Head\n\nText.\n")
    return path


def beside(document: Path) -> Path:
    return document.with_name(f"{document.name}.meta.json")


def described(document: Path, **fields: object) -> Document:
    beside(document).write_text(json.dumps(fields))
    return read_document(document)


def reason(document: Path) -> str:
    with pytest.raises(UnreadableDocumentError) as caught:
        read_document(document)
    return caught.value.reason


def test_it_wins_over_front_matter_key_by_key(page: Path) -> None:
    document = described(page, title="Side", tenant="acme", year=2002, author={"name": "Eve"}, tags=["a"])
    assert (document.title, document.tenant) == ("Side", "acme")
    assert document.metadata == {"lang": "en", "year": 2002, "author": {"name": "Eve"}, "tags": ["a"]}


def test_what_it_does_not_tell_stays(page: Path) -> None:
    document = described(page)
    assert (document.title, document.tenant) == ("Front", None)
    assert document.metadata == {"lang": "en", "year": 2001, "author": {"name": "Ada", "born": 1815}}
    assert described(page, title="").title == "Front"


def test_a_document_of_any_kind_may_have_one(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    document = described(tmp_path / "x.txt", title="  A\ntitle ", tenant="acme")
    assert (document.title, document.tenant, document.metadata) == ("A title", "acme", {})


def test_one_saved_with_a_byte_order_mark_is_read(page: Path) -> None:
    beside(page).write_bytes(b'\xef\xbb\xbf{"tenant": "acme"}')
    assert read_document(page).tenant == "acme"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"[]", "it is a list, expected an object"),
        (b'{"tenant": "acme"', "not JSON: Expecting ',' delimiter at character 18, its end"),
        (b"{'tenant': 'acme'}", "at character 2, where \"'tenant': 'acme'}\" stands"),
        (b'{"tenant": ""}', 'tenant is "", expected a string that is not empty'),
        (b'{"tenant": null}', "tenant is null, expected a string"),
        (b'{"tenant": 7}', "tenant is 7, expected a string"),
        (b'{"tenant": "a", "tenant": "b"}', 'the key "tenant" stands twice in one object, with "b" the second time'),
        (b'{"title": 7}', "title is 7, expected a string"),
        (b'{"year": NaN}', "year is NaN, expected a finite number"),
        (b'{"year": 1e999}', "year is Infinity, expected a finite number"),
        (b'{"a": {"b": "\\u0000"}}', r'a.b is "\u0000", expected a string without NUL'),
        (b'{"a": "\xff"}', "byte 8 is 0xff, expected UTF-8"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number has thousands of digits"),
        (b'{"a": "' + b"x" * 70_000 + b'"}', "over the limit of 65536"),
        (b'{"a": "' + b"x" * 2_000_000 + b'"}', "has 2000009 bytes, over the limit of 1048576; shorten it"),
    ],
)
def test_one_that_can_not_be_taken_leaves_the_document_out_by_its_own_name(page: Path, data: bytes, told: str) -> None:
    beside(page).write_bytes(data)
    assert told in reason(page)
    assert reason(page).startswith("is left out because")
    assert str(beside(page)) in reason(page)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=30) | st.text('{}[]":,\\truefalsn01.eE-NaI ', max_size=30).map(str.encode))
def test_any_bytes_end_in_a_document_or_a_reason(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    page = tmp_path_factory.getbasetemp() / "fuzzed.txt"
    page.write_text("text")
    beside(page).write_bytes(data)
    try:
        assert read_document(page).text == "text"
    except UnreadableDocumentError as error:
        assert str(beside(page)) in error.reason  # noqa: PT017  # either way is right


def test_a_link_to_nowhere_a_folder_and_a_pipe_leave_the_document_out(page: Path) -> None:
    beside(page).symlink_to("nowhere")
    assert "can't be opened: No such file or directory; check it and its permissions" in reason(page)
    beside(page).unlink()
    beside(page).mkdir()
    assert "is not a regular file; correct or remove it" in reason(page)
    beside(page).rmdir()
    os.mkfifo(beside(page))
    assert "is not a regular file" in reason(page)


def test_a_side_car_that_can_not_be_looked_for_leaves_the_document_out(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Path.lstat

    def refuse(path: Path) -> os.stat_result:
        if path == beside(page):
            raise PermissionError(13, "Permission denied")
        return look(path)

    monkeypatch.setattr(Path, "lstat", refuse)
    assert "can't be looked for: Permission denied" in reason(page)


def test_a_link_to_a_document_does_not_lose_the_side_car_beside_the_file_itself(page: Path, tmp_path: Path) -> None:
    beside(page).write_text('{"tenant": "acme"}')
    link = tmp_path / "a" / "link.md"
    link.parent.mkdir()
    link.symlink_to(page)
    assert read_document(link).tenant == "acme"


def test_a_linked_folder_gives_one_side_car_and_not_two(page: Path, tmp_path: Path) -> None:
    beside(page).write_text('{"tenant": "acme"}')
    (tmp_path / "folder").symlink_to(tmp_path)
    assert read_document(tmp_path / "folder" / page.name).tenant == "acme"


def test_two_side_cars_of_one_document_leave_it_out(page: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.md"
    link.symlink_to(page)
    beside(page).write_text('{"tenant": "acme"}')
    beside(link).write_text('{"tenant": "other"}')
    assert reason(link) == f"has two side-cars, {beside(link)} and {beside(page)}; keep one"


def test_front_matter_and_side_car_that_are_too_much_together_are_refused(page: Path) -> None:
    page.write_text(f"---\nfront: {'x' * 40_000}\n---\ntext")
    beside(page).write_text(json.dumps({"side": "y" * 40_000}))
    assert "has too much metadata in front matter and side-car" in reason(page)


def test_a_name_too_long_for_a_side_car_is_a_document_without_one(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".txt")
    path.write_text("text")
    assert read_document(path).tenant is None
