"""Promises of publication: whatever happens to the writer, a reader finds a whole version."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from index_fakes import DIM, FakeEncoder, documents, lines, passages, unit_vectors, write_index

from tritonrag_backends.index import Index
from tritonrag_backends.index.disk import Disk
from tritonrag_backends.index.format import CURRENT, SEGMENTS, STAGING
from tritonrag_backends.index.lock import write_lock
from tritonrag_backends.index.store import manifest_names, sweep
from tritonrag_backends.index.writer import SegmentWriter, set_current
from tritonrag_client.errors import BadRequestError, UnavailableError
from tritonrag_export.indexing import build_index


def test_a_writer_killed_at_any_step_leaves_the_old_version_live_and_whole(tmp_path: Path) -> None:
    script = Path(__file__).with_name("index_crash.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path / "index")],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    *killed, last = found
    assert len(killed) >= 10
    # The sync that follows the last rename is a step too: killed there, the new version is live, and as whole.
    old = [entry for entry in killed if entry["version"] == 1]
    assert all(entry == {"killed": True, "version": 1, "passages": 6} for entry in old)
    assert len(killed) - len(old) <= 1
    assert all(entry["passages"] == 12 for entry in found if entry["version"] > 1)
    assert not last["killed"]
    assert last["version"] > 1


def test_what_a_killed_writer_left_is_swept_and_what_versions_name_is_kept(tmp_path: Path) -> None:
    first = write_index(tmp_path, unit_vectors(10))
    second = write_index(tmp_path, unit_vectors(12))
    (tmp_path / SEGMENTS / "000077").mkdir()
    (tmp_path / STAGING / "000078").mkdir(parents=True)
    with write_lock(tmp_path):
        sweep(tmp_path)
    kept = {path.name for path in (tmp_path / SEGMENTS).iterdir()}
    assert kept == {segment.id for manifest in (first, second) for segment in manifest.segments}
    assert not (tmp_path / STAGING).exists()


def test_a_sweep_removes_no_segment_while_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    manifest = write_index(tmp_path, unit_vectors(10))
    (tmp_path / SEGMENTS / "000077").mkdir()
    (tmp_path / "manifests" / manifest.file_name).write_bytes(b"{}")
    with write_lock(tmp_path):
        sweep(tmp_path)
    assert {path.name for path in (tmp_path / SEGMENTS).iterdir()} == {manifest.segments[0].id, "000077"}


def test_versions_and_segment_numbers_are_never_used_twice(tmp_path: Path) -> None:
    manifests = [write_index(tmp_path, unit_vectors(5)) for _ in range(3)]
    assert [manifest.index_version for manifest in manifests] == [1, 2, 3]
    assert [manifest.segments[0].number for manifest in manifests] == [1, 2, 3]
    set_current(tmp_path, manifests[0].file_name)
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


def test_a_second_builder_is_refused_while_the_first_one_writes(tmp_path: Path) -> None:
    refused: list[str] = []

    class Meddling(FakeEncoder):
        def encode(self, texts):  # noqa: ANN001, ANN202
            with pytest.raises(UnavailableError) as raised:
                build_index(documents(1), FakeEncoder(), tmp_path, chunker=lines)
            refused.append(raised.value.message)
            return super().encode(texts)

    assert build_index(documents(2), Meddling(), tmp_path, chunker=lines).index_version == 1
    assert f"pid {os.getpid()}" in refused[0]
    assert build_index(documents(2), FakeEncoder(), tmp_path, chunker=lines).index_version == 2


def test_a_full_disk_is_told_in_words_and_the_live_version_stays(tmp_path: Path) -> None:
    class Full(Disk):
        def write(self, path: Path, data: bytes) -> None:  # noqa: ARG002 - Disk's signature
            raise OSError(28, "No space left on device")

    write_index(tmp_path, unit_vectors(10))
    with pytest.raises(UnavailableError, match="No space left on device"):
        build_index(documents(2), FakeEncoder(), tmp_path, chunker=lines, disk=Full())
    assert Index.open(tmp_path, fingerprint="f1").version == 1


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
    with (
        SegmentWriter(tmp_path, number=1, dim=DIM, kind="flat") as writer,
        pytest.raises(BadRequestError, match=said),
    ):
        writer.add(passages(2), vectors)
    assert writer.rows == 0
