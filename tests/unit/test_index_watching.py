"""A file of the served version that is written to is noticed; one that is removed or replaced is not what is mapped."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.index_fakes import add, document, unit_vectors, write_index

from tritonrag_backends.index import Index
from tritonrag_backends.index.format import SEGMENTS
from tritonrag_backends.index.live import LiveIndex, ReloadEvent
from tritonrag_backends.index.operations import delete_documents
from tritonrag_backends.index.store import read_current
from tritonrag_backends.index.watching import FileWatch


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("damage", [flip, shorten, append])
def test_a_change_in_place_is_told_with_the_files_name(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    write_index(tmp_path, unit_vectors(20), segments=2, kind="hnsw")
    manifest = read_current(tmp_path)
    files = [path for path in (tmp_path / SEGMENTS).rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        os.utime(path, ns=(0, 0))  # a file system's clock may be coarse
        watch = FileWatch(tmp_path)
        assert watch.look(manifest) == watch.look(manifest) == ""
        damage(path)
        told = watch.look(manifest)
        assert str(path.relative_to(tmp_path)) in told
        assert str(tmp_path) not in told


def test_several_files_are_told_as_one_and_how_many_more(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(20))
    manifest, watch = read_current(tmp_path), FileWatch(tmp_path)
    watch.look(manifest)
    for path in (tmp_path / SEGMENTS).rglob("*.bin"):
        append(path)
    assert " and 2 more were changed" in watch.look(manifest)


def test_another_version_is_looked_at_anew(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(20))
    first, watch = read_current(tmp_path), FileWatch(tmp_path)
    watch.look(first)
    append(next((tmp_path / SEGMENTS).rglob("*.bin")))
    assert watch.look(first) != ""
    assert watch.look(read_current(tmp_path)) == ""


@pytest.mark.parametrize(
    "change", [Path.unlink, lambda path: shutil.copy(path, f"{path}.new") and Path(f"{path}.new").replace(path)]
)
def test_a_file_that_is_removed_or_replaced_is_no_change_of_what_is_mapped(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    write_index(tmp_path, unit_vectors(20))
    manifest, watch = read_current(tmp_path), FileWatch(tmp_path)
    watch.look(manifest)
    for path in list((tmp_path / SEGMENTS).rglob("*.npy")):
        change(path)
    assert watch.look(manifest) == ""


def test_a_doubted_index_says_so_and_searches_as_before(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(20))
    index = Index.open(tmp_path, fingerprint=None)
    doubted = index.doubted("a file was changed")
    assert (index.degraded, doubted.degraded) == ("", "a file was changed")
    assert doubted.manifest is index.manifest
    assert doubted.segments == index.segments


def test_a_change_after_a_version_was_expected_is_told_at_the_first_look(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(20))
    manifest, watch = read_current(tmp_path), FileWatch(tmp_path)
    watch.expect(manifest)
    path = next((tmp_path / SEGMENTS).rglob("*.bin"))
    append(path)
    assert path.name in watch.look(read_current(tmp_path))


class Served:
    """An index that is followed by looks of the test's, and a file of its first segment."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.events = directory, list[ReloadEvent]()
        write_index(directory, unit_vectors(20))
        self.path = directory / SEGMENTS / read_current(directory).segments[0].id / "passages.bin"
        os.utime(self.path, ns=(0, 0))  # a file system's clock may be coarse
        self.kept = self.path.read_bytes()
        self.live = LiveIndex.open(
            directory, fingerprint=None, embedder_name=None, poll_s=60, on_reload=self.events.append
        )

    def change(self, change: str) -> None:
        """Make a version that keeps the first segment."""
        if change == "add":
            add(self.directory, [document("new.md", "A new text")])
        else:
            delete_documents(self.directory, ["doc1.md"])

    @property
    def told(self) -> str:
        return "; ".join(f"{event.damage}{event.error or ''}" for event in self.events)


@pytest.mark.parametrize("change", ["add", "delete"])
@pytest.mark.parametrize("looks_between", [True, False])
def test_a_damaged_segment_is_not_trusted_again_with_the_next_version(
    tmp_path: Path, change: str, looks_between: bool
) -> None:
    served = Served(tmp_path)
    flip(served.path)
    if looks_between:
        served.live.look()
    served.change(change)
    for _ in range(3):
        served.live.look()
    assert served.live.current.version == 1
    assert "passages.bin was changed" in served.live.current.degraded
    assert "its sha256 is not the manifest's" in served.told
    served.path.write_bytes(served.kept)
    served.live._rests_until_s = 0.0
    served.live.look()
    assert (served.live.current.version, served.live.current.degraded) == (2, "")


def test_what_is_changed_while_the_index_is_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(tmp_path)
    opened = Index.open

    def open_and_flip(*args: Any, **options: Any) -> Index:
        index = opened(*args, **options)
        flip(served.path)
        return index

    monkeypatch.setattr(Index, "open", open_and_flip)
    live = LiveIndex.open(tmp_path, fingerprint=None, embedder_name=None, poll_s=60, on_reload=served.events.append)
    live.look()
    assert "passages.bin was changed" in live.current.degraded
