"""Files and folders become documents; what can't be read is named, counted and passed over."""

import os
from pathlib import Path

import pytest

from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, NotFoundError
from tritonrag_export.documents.errors import UnreadableDocumentError
from tritonrag_export.documents.finding import ReadSummary, Skipped
from tritonrag_export.documents.model import Document
from tritonrag_export.documents.reading import READERS, read_document
from tritonrag_export.documents.units import read_units


def whole(document: Document) -> list[Passage]:
    """A document as one passage."""
    return [Passage(text=document.text, title="", uri=document.uri, start=0, end=len(document.text))]


class Reading:
    """Reads everything, and keeps what was told on the way."""

    def __init__(self, *paths: Path, max_bytes: int = 1000) -> None:
        self.skipped: list[Skipped] = []
        self.summary = ReadSummary()
        found = read_units(paths, chunker=whole, on_skip=self.skipped.append, summary=self.summary, max_bytes=max_bytes)
        self.uris = [unit.id for unit in found]

    def reason(self) -> str:
        (skipped,) = self.skipped
        return skipped.reason


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.txt", "a/z.md", "a/b/c.rst", "a.txt", ".hidden.txt", ".git/config.txt", "code.py", "noext"):
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"This is {name}.")
    return Path("docs")


def test_a_folder_is_walked_in_order_without_hidden_and_unsupported_files(folder: Path) -> None:
    reading = Reading(folder)
    assert reading.uris == ["docs/a/b/c.rst", "docs/a/z.md", "docs/a.txt", "docs/b.txt"]
    assert reading.summary.unsupported == {".py": 1, "": 1}
    assert (reading.summary.documents, reading.summary.skipped) == (4, 0)


def test_each_file_comes_once_however_often_it_is_named(folder: Path) -> None:
    assert Reading(folder / "b.txt", folder, folder / "a" / ".." / "a.txt").uris == [
        "docs/b.txt",
        "docs/a/b/c.rst",
        "docs/a/z.md",
        "docs/a.txt",
    ]


def test_links_are_followed_and_circles_of_links_end(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.txt").write_text("x")
    (folder / "a" / "up").symlink_to("..")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    reading = Reading(folder)
    assert "docs/link/x.txt" in reading.uris
    assert len(reading.uris) == 5
    assert reading.skipped == []


def test_a_link_that_leads_nowhere_or_to_itself_is_reported(folder: Path) -> None:
    (folder / "broken.txt").symlink_to("nowhere")
    (folder / "self.txt").symlink_to("self.txt")
    reading = Reading(folder)
    assert [(s.path, "can't be opened" in s.reason) for s in reading.skipped] == [
        ("docs/broken.txt", True),
        ("docs/self.txt", True),
    ]
    assert reading.summary.documents == 4


def test_a_missing_path_is_named_before_anything_is_read(folder: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file or folder docs/missing"):
        read_units([folder, folder / "missing"], chunker=whole, on_skip=print)


def test_a_named_file_of_another_kind_is_reported_with_the_kinds_that_are_supported(folder: Path) -> None:
    reading = Reading(folder / "code.py")
    assert "supported are .md .markdown .txt" in reading.reason()
    assert reading.summary.skipped == 1


def test_a_named_hidden_file_is_read(folder: Path) -> None:
    assert Reading(folder / ".hidden.txt").uris == ["docs/.hidden.txt"]


def test_a_folder_with_nothing_in_it_leaves_an_empty_summary(tmp_path: Path) -> None:
    assert Reading(tmp_path).summary == ReadSummary()


@pytest.mark.parametrize("name", sorted({f"x{suffix}" for suffix in READERS}))
def test_an_empty_file_of_any_kind_is_reported_as_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert Reading(tmp_path).reason().startswith("is empty")


@pytest.mark.parametrize("name", sorted({f"x{suffix}" for suffix in READERS}))
def test_binary_junk_of_any_kind_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 3)
    assert Reading(tmp_path).summary.skipped == 1


@pytest.mark.parametrize(
    ("name", "data"), [("x.txt", b" \n\t\n"), ("x.html", b"<p> </p><script>1</script>"), ("x.md", b"\n")]
)
def test_a_file_without_text_is_reported(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert Reading(tmp_path).reason().startswith("holds no text")


def test_a_file_over_the_size_limit_is_reported_with_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("a" * 1001)
    assert "has 1001 bytes, over the limit of 1000" in Reading(tmp_path).reason()


def test_a_named_pipe_is_reported_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert "not a regular file" in Reading(tmp_path).reason()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_reported(folder: Path) -> None:
    (folder / "b.txt").chmod(0)
    (folder / "a").chmod(0)
    reading = Reading(folder)
    (folder / "a").chmod(0o700)
    assert [skipped.path for skipped in reading.skipped] == ["docs/a", "docs/b.txt"]


def test_a_name_that_is_no_utf8_can_still_be_shown(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    path.write_text("coffee")
    (uri,) = Reading(tmp_path).uris
    assert uri.encode().decode().endswith("caf\ufffd.txt")


def test_the_error_names_file_and_reason_and_is_a_bad_request(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.touch()
    with pytest.raises(UnreadableDocumentError, match=r"x\.txt is empty; leave it out") as caught:
        read_document(path)
    assert isinstance(caught.value, BadRequestError)
    assert caught.value.path == str(path)


def test_title_and_uri_fall_back_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    document = read_document(tmp_path / "x.txt", uri="my:x")
    assert (document.uri, document.title) == ("my:x", "x.txt")


def test_side_cars_are_neither_documents_nor_unsupported_files(folder: Path) -> None:
    for name in ("b.txt", "code.py", ".hidden.txt"):
        (folder / f"{name}.meta.json").write_text("{}")
    (folder / "other.json").write_text("{}")
    reading = Reading(folder)
    assert reading.uris == ["docs/a/b/c.rst", "docs/a/z.md", "docs/a.txt", "docs/b.txt"]
    assert (reading.summary.unsupported, reading.skipped) == ({".py": 1, "": 1, ".json": 1}, [])


def test_a_side_car_without_its_document_is_reported(folder: Path) -> None:
    (folder / "gone.pdf.meta.json").write_text("{}")
    for reading in (Reading(folder), Reading(folder / "gone.pdf.meta.json")):
        assert [str(skipped) for skipped in reading.skipped] == [
            "docs/gone.pdf.meta.json is a side-car without its document; put docs/gone.pdf there or remove it"
        ]
        assert reading.summary.skipped == 1


def test_a_side_car_that_is_named_stands_for_its_document(folder: Path) -> None:
    (folder / "b.txt.meta.json").write_text("{}")
    reading = Reading(folder / "b.txt.meta.json", folder / "b.txt")
    assert (reading.uris, reading.skipped) == (["docs/b.txt"], [])


@pytest.mark.parametrize("name", [".meta.json", "x.json"])
def test_json_that_is_no_side_car_is_of_no_supported_kind(folder: Path, name: str) -> None:
    (folder / name).write_text("{}")
    assert "supported are .md .markdown .txt .text .rst .html .htm .pdf .docx .jsonl" in Reading(folder / name).reason()
