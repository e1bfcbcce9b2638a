"""A file of the served version that is written to is noticed; one that is removed or replaced is not what is mapped."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.index_fakes import unit_vectors, write_index

from tritonrag_backends.index import Index
from tritonrag_backends.index.format import SEGMENTS
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
