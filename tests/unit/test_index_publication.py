"""Promises of publication: whatever happens to the writer, a reader finds a whole version."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from index_fakes import DIM, OPTIONS, FakeEncoder, add, build, document, documents, unit_vectors, write_index

from tritonrag_backends.index import Index
from tritonrag_backends.index.disk import Disk
from tritonrag_backends.index.format import CURRENT, SEGMENTS, SHARED, STAGING
from tritonrag_backends.index.lock import merge_lock, write_lock
from tritonrag_backends.index.manifest_json import manifest_file_name
from tritonrag_backends.index.merging import merge
from tritonrag_backends.index.operations import delete_documents, status, verify
from tritonrag_backends.index.store import MERGE_STAGING, manifest_names, sweep
from tritonrag_backends.index.writer import NewPassage, SegmentWriter
from tritonrag_client.errors import BadRequestError, UnavailableError
from tritonrag_export.indexing import add_documents, build_index

# Passages of a reader before and after each change, and the version that a retry after completion makes.
CHANGES = {"build": (10, 12), "add": (10, 9), "delete": (10, 7), "merge": (10, 10), "rollback": (10, 9)}


def run_program(name: str, *arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name(name)), *arguments],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("change", CHANGES)
def test_a_writer_killed_at_any_step_leaves_a_whole_version_live_and_a_retry_works(tmp_path: Path, change: str) -> None:
    found = json.loads(run_program("index_crash.py", change, str(tmp_path)))
    before, after = CHANGES[change]
    *killed, last = found
    assert len(killed) >= (3 if change == "rollback" else 10)
    assert all(entry["killed"] for entry in killed)
    assert not last["killed"]
    assert last["passages"] == after
    assert all(entry["problems"] == [] and entry["left"] == 0 for entry in found)
    # The sync that follows the last rename is a step too: killed there, the new version is live, and as whole.
    done = [entry for entry in killed if entry["version"] != 2]
    assert len(done) <= 1
    assert all(entry["passages"] == after for entry in done)
    assert all(entry["passages"] == before for entry in killed if entry["version"] == 2)


@pytest.mark.parametrize("change", ["build", "add", "merge"])
def test_a_full_disk_leaves_the_live_version_and_nothing_else_behind(tmp_path: Path, change: str) -> None:
    """A limit on the size of files stands in for a full disk: the same writes fail, wherever they are."""
    found = json.loads(run_program("index_full_disk.py", change, str(tmp_path)))
    assert found["refused"] > 5
    assert found["worked"] > 0
    assert found["messages"] == ["unavailable: the index can't be written"]
    assert found["problems"] == []


def test_what_a_killed_writer_left_is_swept_and_what_versions_name_is_kept(tmp_path: Path) -> None:
    first = write_index(tmp_path, unit_vectors(10))
    second = write_index(tmp_path, unit_vectors(12))
    (tmp_path / SEGMENTS / "000077").mkdir()
    (tmp_path / STAGING / "000078").mkdir(parents=True)
    with write_lock(tmp_path):
        sweep(tmp_path)
    kept = {path.name for path in (tmp_path / SEGMENTS).iterdir()}
    assert kept == {segment.id for manifest in (first, second) for segment in manifest.segments}
    assert not list((tmp_path / STAGING).iterdir())


def test_a_sweep_leaves_alone_what_a_running_merge_writes(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(10))
    (tmp_path / STAGING / MERGE_STAGING).mkdir(parents=True)
    (tmp_path / SHARED / "tombstones-0123456789abcdef.npy").touch()
    with merge_lock(tmp_path), write_lock(tmp_path):
        sweep(tmp_path)
    assert (tmp_path / STAGING / MERGE_STAGING).exists()
    assert len(list((tmp_path / SHARED).iterdir())) == 1
    with write_lock(tmp_path):
        sweep(tmp_path)
    assert not (tmp_path / STAGING / MERGE_STAGING).exists()


def test_a_sweep_removes_no_segment_while_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    manifest = write_index(tmp_path, unit_vectors(10))
    (tmp_path / SEGMENTS / "000077").mkdir()
    (tmp_path / "manifests" / manifest_file_name(manifest)).write_bytes(b"{}")
    with write_lock(tmp_path):
        sweep(tmp_path)
    assert {path.name for path in (tmp_path / SEGMENTS).iterdir()} == {manifest.segments[0].id, "000077"}


def test_versions_and_segment_numbers_are_never_used_twice(tmp_path: Path) -> None:
    manifests = [write_index(tmp_path, unit_vectors(5)) for _ in range(3)]
    assert [manifest.index_version for manifest in manifests] == [1, 2, 3]
    assert [manifest.segments[0].number for manifest in manifests] == [1, 2, 3]
    (tmp_path / CURRENT).write_text(f"{manifest_file_name(manifests[0])}\n")
    assert write_index(tmp_path, unit_vectors(5)).index_version == 4


def test_a_rollback_is_the_name_of_an_older_manifest_in_current(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(10))
    write_index(tmp_path, unit_vectors(12))
    older = manifest_names(tmp_path)[0]
    (tmp_path / CURRENT).write_text(f"{older}\n")
    index = Index.open(tmp_path, fingerprint="f1")
    assert (index.version, index.passage_count) == (1, 10)


def test_a_reader_keeps_its_version_while_the_next_one_is_published(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(10))
    before = Index.open(tmp_path, fingerprint="f1")
    write_index(tmp_path, unit_vectors(12))
    assert before.version == 1
    assert len(before.passages([(1 << 32) | 9])) == 1
    assert Index.open(tmp_path, fingerprint="f1").version == 2


def test_a_second_writer_is_refused_while_the_first_one_writes_and_can_wait(tmp_path: Path) -> None:
    build(tmp_path, documents(2))
    refused: list[str] = []

    class Meddling(FakeEncoder):
        def encode(self, texts, **options):  # noqa: ANN001, ANN003, ANN202
            for attempt in (
                lambda: build_index(documents(1), [FakeEncoder()], tmp_path),
                lambda: add_documents(documents(9), [FakeEncoder()], tmp_path),
                lambda: delete_documents(tmp_path, ["d0.md"], wait_s=0.05),
            ):
                with pytest.raises(UnavailableError) as raised:
                    attempt()
                refused.append(raised.value.message)
            return super().encode(texts, **options)

    assert add_documents([document("e", "text")], [Meddling()], tmp_path).index_version == 2
    assert len(refused) == 3
    assert all(f"pid {os.getpid()}" in message and "--wait-s" in message for message in refused)
    assert delete_documents(tmp_path, ["d0.md"]).manifest.index_version == 3


def test_writers_that_wait_all_have_their_turn_and_nothing_is_lost(tmp_path: Path) -> None:
    build(tmp_path, documents(1))
    with ThreadPoolExecutor(6) as pool:
        for i in range(12):
            pool.submit(add_documents, [document(f"new{i}", f"text {i}")], [FakeEncoder()], tmp_path, wait_s=60)
    assert status(tmp_path).manifest.counts.documents == 13
    assert status(tmp_path).manifest.index_version == 13


def test_a_second_merge_is_refused_while_the_first_one_runs(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(10), segments=2)
    with merge_lock(tmp_path), pytest.raises(UnavailableError, match="merging segments"):
        merge(tmp_path, everything=True)


def test_a_full_disk_is_told_in_words_and_the_live_version_stays(tmp_path: Path) -> None:
    class Full(Disk):
        def write(self, path: Path, data: bytes) -> None:  # noqa: ARG002 - Disk's signature
            raise OSError(28, "No space left on device")

    write_index(tmp_path, unit_vectors(10))
    with pytest.raises(UnavailableError, match="No space left on device"):
        build_index(documents(2), [FakeEncoder()], tmp_path, disk=Full())
    assert Index.open(tmp_path, fingerprint="f1").version == 1
    assert not list((tmp_path / STAGING).glob("segment-*"))
    assert add(tmp_path, documents(2)).index_version == 2
    assert verify(tmp_path) == []


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (unit_vectors(2, DIM + 1), "shape"),
        (unit_vectors(3), "shape"),
        (unit_vectors(2).astype(float), "float64"),
        (unit_vectors(2) * 2, "length 2"),
        (unit_vectors(2) * float("nan"), "length nan"),
        (unit_vectors(2) * float("inf"), "length"),
    ],
)
def test_vectors_that_are_not_unit_fp32_of_the_right_shape_are_not_written(tmp_path: Path, vectors, said) -> None:  # noqa: ANN001
    new = [NewPassage(document="a", tenant=None, passage=passage) for passage in document("a", "x", "y").passages]
    with (
        SegmentWriter(tmp_path / "segment", dim=DIM, options=OPTIONS) as writer,
        pytest.raises(BadRequestError, match=said),
    ):
        writer.add(new, vectors)
    assert writer.rows == 0
