"""What goes into an index: the passages of each document as one unit, whatever it was read from."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, NotFoundError
from tritonrag_export.documents.finding import ReadSummary, Skipped
from tritonrag_export.documents.model import Document, DocumentPassages
from tritonrag_export.documents.units import read_units, units_of


def lines(document: Document) -> Iterable[Passage]:
    """A chunker: a passage for each line."""
    at = 0
    for line in document.text.splitlines(keepends=True):
        text = line.rstrip("\n")
        if text:
            yield Passage(text=text, title=document.title, uri=document.uri, start=at, end=at + len(text))
        at += len(line)


class Reading:
    """Reads everything, and keeps what was told on the way."""

    def __init__(self, *paths: Path, tenant: str | None = None, max_bytes: int = 1000) -> None:
        self.skipped: list[Skipped] = []
        self.summary = ReadSummary()
        found = read_units(
            paths, chunker=lines, on_skip=self.skipped.append, summary=self.summary, tenant=tenant, max_bytes=max_bytes
        )
        self.units = list(found)

    def ids(self) -> list[tuple[str, str | None]]:
        return [(unit.id, unit.tenant) for unit in self.units]

    def told(self) -> list[str]:
        return [str(skipped) for skipped in self.skipped]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("docs")
    folder.mkdir()
    (folder / "a.md").write_text("---\nlang: en\n---\none\ntwo\n")
    (folder / "b.jsonl").write_text('{"id": 1, "text": "x"}\n{"id": 2, "text": "y", "tenant": "own"}\n')
    (folder / "c.txt").write_text("three\n")
    (folder / "c.txt.meta.json").write_text('{"tenant": "side"}')
    return folder


def test_files_and_lines_of_jsonl_are_units_in_the_order_of_the_walk(folder: Path) -> None:
    reading = Reading(folder)
    assert reading.ids() == [("docs/a.md", None), ("1", None), ("2", "own"), ("docs/c.txt", "side")]
    assert [[passage.text for passage in unit.passages] for unit in reading.units] == [
        ["one", "two"],
        ["x"],
        ["y"],
        ["three"],
    ]
    assert (reading.summary, reading.skipped) == (ReadSummary(documents=4), [])


def test_a_tenant_for_all_is_that_of_each_document_without_its_own(folder: Path) -> None:
    assert [tenant for _, tenant in Reading(folder, tenant="all").ids()] == ["all", "all", "own", "side"]


def test_a_named_jsonl_file_is_read_whatever_the_case_of_its_suffix_and_only_once(folder: Path) -> None:
    (folder / "b.jsonl").rename(folder / "B.JSONL")
    assert [name for name, _ in Reading(folder / "B.JSONL", folder).ids()] == ["1", "2", "docs/a.md", "docs/c.txt"]


def test_the_size_limit_is_for_documents_and_not_for_jsonl(folder: Path) -> None:
    (folder / "b.jsonl").write_text("".join(json.dumps({"id": i, "text": "x" * 50}) + "\n" for i in range(40)))
    assert len(Reading(folder / "b.jsonl", max_bytes=1000).units) == 40


def test_a_bad_line_of_jsonl_ends_the_reading(folder: Path) -> None:
    (folder / "b.jsonl").write_text('{"id": 1, "text": "x"}\n{"id": 2}\n')
    with pytest.raises(BadRequestError, match=r"docs/b\.jsonl line 2: text is missing"):
        Reading(folder)


def test_a_document_whose_side_car_is_broken_is_told_and_never_given(folder: Path) -> None:
    (folder / "c.txt.meta.json").write_text('{"tenant": "si')
    reading = Reading(folder)
    assert [name for name, _ in reading.ids()] == ["docs/a.md", "1", "2"]
    (told,) = reading.told()
    assert told.startswith("docs/c.txt is left out because of its side-car docs/c.txt.meta.json: not JSON")
    assert (reading.summary.documents, reading.summary.skipped) == (3, 1)


def test_what_holds_nothing_to_embed_is_told_and_counted_as_skipped(folder: Path) -> None:
    (folder / "b.jsonl").write_text("\n\n")
    found: list[Skipped] = []
    summary = ReadSummary()
    units = list(read_units([folder], chunker=lambda _: [], on_skip=found.append, summary=summary))
    assert units == []
    assert list(map(str, found)) == [
        "docs/a.md holds no text to embed",
        "docs/b.jsonl holds no passages; leave it out",
        "docs/c.txt holds no text to embed",
    ]
    assert (summary.documents, summary.skipped) == (0, 3)


def test_a_missing_path_and_an_empty_tenant_are_told_before_anything_is_read(folder: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file or folder docs/missing"):
        read_units([folder, folder / "missing"], chunker=lines, on_skip=print)
    with pytest.raises(BadRequestError, match='tenant is "", expected a string that is not empty; name one'):
        read_units([folder], chunker=lines, on_skip=print, tenant="")
    with pytest.raises(BadRequestError, match="tenant is"):
        units_of([], lines, print, tenant="")


def test_documents_from_elsewhere_become_units_with_their_own_tenant_or_that_for_all() -> None:
    documents = [
        Document(uri="pydoc:json", title="json", text="a\nb"),
        Document(uri="blank", title="", text="\n"),
        Document(uri="mine", title="", text="c", tenant="own"),
    ]
    told: list[Skipped] = []
    units = list(units_of(documents, lines, told.append, tenant="all"))
    assert [(unit.id, unit.tenant, len(unit.passages)) for unit in units] == [
        ("pydoc:json", "all", 2),
        ("mine", "own", 1),
    ]
    assert list(map(str, told)) == ["blank holds no text to embed"]


def test_documents_are_taken_one_at_a_time() -> None:
    taken: list[str] = []

    def reading() -> Iterable[Document]:
        for uri in "abc":
            taken.append(uri)
            yield Document(uri=uri, title="", text="x")

    units = units_of(reading(), lines, print)
    assert (next(units).id, taken) == ("a", ["a"])


def test_the_tenant_is_not_in_the_passages() -> None:
    (unit,) = units_of([Document(uri="u", title="", text="x", tenant="secret")], lines, print)
    assert unit == DocumentPassages(
        id="u", tenant="secret", passages=(Passage(text="x", title="", uri="u", start=0, end=1),)
    )
    assert b"secret" not in unit.passages[0].to_json()
