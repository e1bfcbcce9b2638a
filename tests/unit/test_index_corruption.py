"""Promises about damage: whatever happens to a file of an index, opening it names the file and nothing reads it."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from index_fakes import build, document, unit_vectors, write_index

from tritonrag_backends.index import Index
from tritonrag_backends.index.format import LOCK
from tritonrag_backends.index.merging import merge
from tritonrag_backends.index.operations import delete_documents, verify
from tritonrag_client.errors import InternalError, NotFoundError, RagError

ROUNDS = 60
KINDS = ["flat", "sq8", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"]


def write_every_file(directory: Path, kind: str) -> list[Path]:
    """An index with a file of each sort: int8 vectors with their scales, a projection, queries, tombstones."""
    units = [document(f"d{i}", f"text {i}", lang="en") for i in range(400)]
    build(directory, units, kind=kind, vectors="int8", dims=8)
    delete_documents(directory, ["d7"])
    for path in (directory / "manifests").glob("00000001-*"):
        path.unlink()
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != LOCK)
    assert len(files) == {"flat": 19}.get(kind, 20)
    return [path for path in files if not path.name.startswith("queries-")]  # which no reader opens


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


@pytest.mark.parametrize("kind", KINDS)
def test_no_corruption_of_any_file_is_loaded(tmp_path: Path, kind: str) -> None:
    for number, path in enumerate(write_every_file(tmp_path, kind)):
        good = path.read_bytes()
        for damaged in corruptions(good, number):
            path.write_bytes(damaged)
            with pytest.raises(InternalError) as raised:
                Index.open(tmp_path, fingerprint="f1")
            assert path.name in raised.value.message
            assert "tritonrag index build" in raised.value.message
        path.write_bytes(good)
    assert Index.open(tmp_path, fingerprint="f1").passage_count == 399


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_named(tmp_path: Path, kind: str) -> None:
    for path in write_every_file(tmp_path, kind):
        moved = path.rename(path.with_name("moved"))
        with pytest.raises(RagError) as raised:
            Index.open(tmp_path, fingerprint="f1")
        assert path.name in raised.value.message
        moved.rename(path)


def test_a_file_that_only_tuning_needs_is_missed_by_verification_and_by_a_merge(tmp_path: Path) -> None:
    write_every_file(tmp_path, "hnsw")
    (queries,) = (tmp_path / "shared").glob("queries-*")
    data = queries.read_bytes()
    queries.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert Index.open(tmp_path, fingerprint="f1").passage_count == 399
    (problem,) = verify(tmp_path)
    assert queries.name in problem
    with pytest.raises(InternalError, match=queries.name):
        merge(tmp_path, everything=True)
    assert Index.open(tmp_path, fingerprint="f1").version == 2


def test_a_damaged_segment_is_not_copied_into_a_merged_one(tmp_path: Path) -> None:
    write_every_file(tmp_path, "flat")
    (passages,) = tmp_path.glob("segments/*/passages.bin")
    passages.write_bytes(passages.read_bytes().replace(b"text 9", b"test 9"))
    with pytest.raises(InternalError, match=r"passages\.bin"):
        merge(tmp_path, everything=True)


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
