"""Promises about damage: whatever happens to a file of an index, opening it names the file and nothing reads it."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from index_fakes import unit_vectors, write_index

from tritonrag_backends.index import Index
from tritonrag_backends.index.format import LOCK
from tritonrag_client.errors import InternalError, NotFoundError, RagError

ROUNDS = 200


def corruptions(data: bytes, seed: int) -> Iterator[bytes]:
    """ROUNDS different damages: a bit, a byte, a stretch, the end cut off, bytes added, bytes moved."""
    chance = random.Random(seed)
    made = 0
    while made < ROUNDS:
        at, length = chance.randrange(len(data)), chance.randrange(1, 9)
        changed = chance.choice([
            data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :],
            data[:at] + chance.randbytes(1) + data[at + 1 :],
            data[:at] + chance.randbytes(length) + data[at + length :],
            data[:at] + bytes(length) + data[at + length :],
            data[:at],
            data + chance.randbytes(length),
            data[at:] + data[:at],
        ])  # fmt: skip
        if changed != data:
            made += 1
            yield changed


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_no_corruption_of_any_file_is_loaded(tmp_path: Path, kind: str) -> None:
    write_index(tmp_path, unit_vectors(40), kind=kind)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.name != LOCK)
    assert len(files) == {"flat": 5, "hnsw": 6}[kind]
    for number, path in enumerate(files):
        good = path.read_bytes()
        for damaged in corruptions(good, number):
            path.write_bytes(damaged)
            with pytest.raises(InternalError) as raised:
                Index.open(tmp_path, fingerprint="f1")
            assert path.name in raised.value.message
            assert "tritonrag index build" in raised.value.message
        path.write_bytes(good)
    assert Index.open(tmp_path, fingerprint="f1").passage_count == 40


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_a_missing_file_is_named(tmp_path: Path, kind: str) -> None:
    write_index(tmp_path, unit_vectors(40), kind=kind)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.name != LOCK):
        moved = path.rename(path.with_name("moved"))
        with pytest.raises(RagError) as raised:
            Index.open(tmp_path, fingerprint="f1")
        assert path.name in raised.value.message
        moved.rename(path)


def test_without_verification_sizes_and_shapes_are_still_checked(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(40))
    vectors = next(tmp_path.rglob("vectors.npy"))
    vectors.write_bytes(vectors.read_bytes()[:-4])
    with pytest.raises(InternalError, match=r"vectors\.npy is damaged"):
        Index.open(tmp_path, fingerprint="f1", verify=False)


def test_a_file_of_the_right_size_and_digest_but_the_wrong_shape_is_refused_even_unverified(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(40, dim=16))
    vectors = next(tmp_path.rglob("vectors.npy"))
    vectors.write_bytes(vectors.read_bytes().replace(b"(40, 16)", b"(80, 8) "))
    with pytest.raises(InternalError, match=r"\(80, 8\)"):
        Index.open(tmp_path, fingerprint="f1", verify=False)


def test_a_directory_that_is_missing_or_empty_or_a_file_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty", "file"):
        with pytest.raises(NotFoundError, match=f"{name}.*tritonrag index build"):
            Index.open(tmp_path / name, fingerprint="f1")
