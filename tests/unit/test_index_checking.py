"""A file is hashed once for all processes of a server, damage is found all the same, and a file that changed is another file."""

import hashlib
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import wait_until

from tritonrag_backends.index import checking
from tritonrag_backends.index.arrays import check_file, record_file
from tritonrag_backends.index.format import FileRecord
from tritonrag_backends.run_dir import RUN_DIR
from tritonrag_client.errors import InternalError

Files = dict[Path, FileRecord]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    folder = tmp_path / "segment"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.npy").write_bytes(os.urandom(1000 * (number + 1)))
    return {path: record_file(path) for path in sorted(folder.iterdir())}


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was hashed."""
    counts: Counter[str] = Counter()

    def counting(path: Path, record: FileRecord, *, verify: bool) -> None:
        counts[path.name] += verify
        check_file(path, record, verify=verify)

    monkeypatch.setattr(checking, "check_file", counting)
    return counts


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv(RUN_DIR, str(folder))
    return folder


@pytest.mark.usefixtures("server")
def test_in_a_server_each_file_is_hashed_once(files: Files, hashed: Counter[str]) -> None:
    for _ in range(3):
        checking.check_files(files, verify=True)
    assert set(hashed.values()) == {1}


def test_without_a_server_each_time(files: Files, hashed: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_DIR, raising=False)
    for _ in range(3):
        checking.check_files(files, verify=True)
    assert set(hashed.values()) == {3}


def test_where_it_is_not_asked_for_nothing_is_hashed(files: Files, hashed: Counter[str], server: Path) -> None:
    checking.check_files(files, verify=False)
    assert set(hashed.values()) == {0}
    assert list(server.iterdir()) == []


@pytest.mark.usefixtures("server")
def test_a_damaged_file_is_named_again_and_again(files: Files) -> None:
    path = list(files)[2]
    path.write_bytes(os.urandom(files[path].bytes))
    for _ in range(2):
        with pytest.raises(InternalError, match=rf"{path.name} is damaged: its sha256"):
            checking.check_files(files, verify=True)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_changed_after_it_was_checked_is_found_out(files: Files, replaced: bool) -> None:
    checking.check_files(files, verify=True)
    path = list(files)[1]
    before, other = path.stat(), path.with_name("other")
    other.write_bytes(os.urandom(files[path].bytes))
    if replaced:
        other.replace(path)
    else:
        path.write_bytes(other.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InternalError, match=path.name):
        checking.check_files(files, verify=True)


@pytest.mark.usefixtures("server")
def test_a_missing_file_is_damage(files: Files) -> None:
    next(iter(files)).unlink()
    with pytest.raises(InternalError, match=r"0\.npy is damaged: it can't be read"):
        checking.check_files(files, verify=True)


@pytest.mark.usefixtures("server")
def test_two_that_open_at_once_share_the_work_and_both_wait_for_all_of_it(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(files, key=lambda path: files[path].bytes)
    go_on, done, order = threading.Event(), [], []

    def holding(path: Path, record: FileRecord, *, verify: bool) -> None:
        if verify and path == largest:
            assert go_on.wait(30)
        check_file(path, record, verify=verify)
        if verify:
            order.append(path)

    monkeypatch.setattr(checking, "check_file", holding)

    def work() -> None:
        checking.check_files(files, verify=True)
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(order) == 3), "the other one goes on to what nobody is at"
    assert done == []
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert len(done) == 2
    assert sorted(order) == sorted(files)


def test_the_note_is_of_the_record_too(files: Files, server: Any) -> None:  # noqa: ARG001
    checking.check_files(files, verify=True)
    path = next(iter(files))
    other = FileRecord(bytes=files[path].bytes, sha256=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(InternalError):
        checking.check_files({path: other}, verify=True)
