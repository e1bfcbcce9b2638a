"""A disk without room while the server serves: nothing is lost, what was live is served on, and the way out is told.

Every step of every change of an index under such a limit: tests/unit/test_index_publication.py.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.faults.hostile import Known, all_live, processes
from tests.server.wire import Failure, Wire, request, strings
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.index.operations import verify
from tritonrag_backends.index.store import read_current
from tritonrag_backends.settings import EmbedderSettings, RetrieverSettings, Settings

PROGRAM: Final = Path(__file__).with_name("index_add_limited.py")
GROWTH: Final = 6.0
FIRST_LIMIT: Final = 200
WORD: Final = "zirconium"  # that no page of Python's manual holds


@pytest.fixture(scope="module")
def own_index(index_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "index"
    shutil.copytree(index_dir, folder)
    return folder


@pytest.fixture(scope="module")
def own_server(own_index: Path, embedder_dir: Path) -> Iterator[RunningServer]:
    settings = Settings(
        index=own_index,
        embedder=EmbedderSettings(model=embedder_dir, instances=1),
        retriever=RetrieverSettings(poll_s=0.05),
    )
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(settings=settings))
    assert triton.check_left_behind() == []


@pytest.fixture
def own_wire(own_server: RunningServer) -> Iterator[Wire]:
    connection = Wire(own_server)
    yield connection
    connection.close()


def add(program: Sequence[str], documents: Path, index: Path, embedder: Path) -> "subprocess.CompletedProcess[str]":
    command = [*program, "index", "add", str(documents), "--index", str(index), "--embedder", str(embedder)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRITONRAG_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def finds(wire: Wire, word: str) -> bool:
    answer = wire.unary(request("retrieve", {"text_input": word, "mode": "lexical"}))
    assert isinstance(answer, dict), answer
    return any(word.encode() in passage for passage in strings(answer["passages"]))


def test_adding_where_there_is_no_room_changes_nothing_until_there_is(
    own_index: Path, own_server: RunningServer, own_wire: Wire, embedder_dir: Path, tmp_path: Path
) -> None:
    documents = tmp_path / "new"
    documents.mkdir()
    (documents / "new.md").write_text(f"# News\n\nThe melting point of {WORD} is 1855 degrees.\n")
    known, before, version = Known.ask(own_wire), processes(own_server), read_current(own_index).index_version
    limit, refused = FIRST_LIMIT, 0
    while True:
        program = [sys.executable, str(PROGRAM), str(int(limit))]
        ended = add(program, documents, own_index, embedder_dir)
        if ended.returncode == 0:
            break
        refused += 1
        assert "can't be written" in ended.stderr or "make room" in ended.stderr, ended.stderr
        assert "Traceback" not in ended.stderr
        assert read_current(own_index).index_version == version
        assert verify(own_index) == []
        assert Known.ask(own_wire) == known
        assert not finds(own_wire, WORD)
        limit *= GROWTH
    assert refused >= 2
    assert wait_until(lambda: finds(own_wire, WORD))
    assert verify(own_index) == []
    assert not list((own_index / "staging").glob("segment-*"))
    assert processes(own_server) == before
    assert all_live(before)


def mounted(folder: Path, size: str) -> bool:
    """Mount a small file system there; false where that is not allowed."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        return False
    folder.mkdir()
    command = [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    if not mounted(folder, "40m"):
        pytest.skip("a file system of its own can't be mounted here")
    yield folder
    unmount = shutil.which("umount")
    assert unmount is not None
    subprocess.run([unmount, str(folder)], check=True, capture_output=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    file = disk / "filling"
    with file.open("wb", buffering=0) as filling:
        for size in (2**20, 2**12, 1):
            try:
                while filling.write(b"x" * size):
                    pass
            except OSError:
                continue
    return file


def start(triton: TritonServer, index: Path, embedder_dir: Path, log_file: Path) -> RunningServer:
    settings = Settings(
        index=index,
        embedder=EmbedderSettings(model=embedder_dir, instances=1),
        retriever=RetrieverSettings(poll_s=0.05),
    )
    verbose = ("--log-verbose=1",)
    return triton.start(ServeOptions(settings=settings, log_file=log_file, triton_arguments=verbose))


def test_a_disk_that_is_full_to_the_last_byte_holds_index_and_log(
    small_disk: Path, index_dir: Path, embedder_dir: Path, tmp_path: Path
) -> None:
    index, log = small_disk / "index", small_disk / "triton.log"
    shutil.copytree(index_dir, index)
    documents = tmp_path / "new"
    documents.mkdir()
    (documents / "new.md").write_text(f"# News\n\nThe melting point of {WORD} is 1855 degrees.\n")
    triton = TritonServer()
    with triton:
        server = start(triton, index, embedder_dir, log)
        wire, before = Wire(server), processes(server)
        known, filling = Known.ask(wire), fill(small_disk)
        size = log.stat().st_size
        for _ in range(20):
            assert isinstance(wire.unary(request("retrieve", {"text_input": ""})), Failure)
        assert Known.ask(wire) == known
        assert log.stat().st_size <= size + os.statvfs(small_disk).f_bsize, "there was room"
        ended = add([str(Path(sys.executable).with_name("tritonrag"))], documents, index, embedder_dir)
        assert ended.returncode != 0
        assert "make room" in ended.stderr, ended.stderr
        assert verify(index) == []
        assert processes(server) == before
        filling.unlink()
        assert add([str(Path(sys.executable).with_name("tritonrag"))], documents, index, embedder_dir).returncode == 0
        assert wait_until(lambda: finds(wire, WORD))
        assert log.stat().st_size > size, "it is written again"
        wire.close()
    assert triton.check_left_behind() == []
