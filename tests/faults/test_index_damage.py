"""An index that is damaged while it is served: a right answer, an error, or an answer that says itself that it may be wrong.

A CURRENT that names nothing or is gone, and a version of another embedding model: tests/server/test_index_swap.py.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.hostile import all_live, processes
from tests.server.wire import Wire, request, strings
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_backends.index.change import set_current
from tritonrag_backends.index.format import MANIFESTS, SEGMENTS, SHARED, EmbeddingRecord
from tritonrag_backends.index.manifest_json import manifest_name
from tritonrag_backends.index.operations import rollback
from tritonrag_backends.index.store import read_current, read_current_name
from tritonrag_backends.settings import EmbedderSettings, RetrieverSettings, Settings
from tritonrag_client.contract import RETRIEVER
from tritonrag_perf.index_swap import REQUESTS
from tritonrag_perf.swap_changes import ChangingIndex
from tritonrag_perf.swap_corpus import Row, make_requests
from tritonrag_perf.swap_load import RetrieverClient
from tritonrag_perf.swap_oracle import Oracle

POLL_S = 0.05
Damage = Callable[[Path], None]


def flip(path: Path) -> None:
    """One bit in the middle, in place."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def remove(path: Path) -> None:
    path.unlink()


DAMAGES: dict[str, Damage] = {one.__name__: one for one in (flip, shorten, empty, lengthen, remove)}
# One of each sort; every file by every damage: tests/unit/test_index_corruption.py.
FILES = ("passages.bin", "vectors.npy", "fields.rows.npy", "terms.keys.bin")


@pytest.fixture(scope="module")
def record(embedder_dir: Path) -> EmbeddingRecord:
    manifest = EmbedderManifest.load(embedder_dir, verify=False)
    return EmbeddingRecord(
        name=manifest.name, fingerprint=manifest.fingerprint, dim=manifest.dim, precision="int8", template="{text}"
    )


def start(triton: TritonServer, index: Path, embedder_dir: Path) -> RunningServer:
    settings = Settings(
        index=index,
        embedder=EmbedderSettings(model=embedder_dir, instances=1),
        retriever=RetrieverSettings(poll_s=POLL_S, cache_bytes=0),
    )
    return triton.start(ServeOptions(settings=settings, models=(RETRIEVER,)))


class Served:
    """A changing index, the server that serves it, and what each of its versions answers."""

    def __init__(self, index: ChangingIndex, server: RunningServer) -> None:
        self.index, self.server, self.wire = index, server, Wire(server)
        self.requests: list[list[Row]] = make_requests(REQUESTS, dim=index.embedder.dim)
        self._oracle = Oracle(index.directory, self.requests)

    def learn(self) -> int:
        """Take in what the live version answers, while its files are whole; the version."""
        live = read_current(self.index.directory)
        self._oracle.learn(live)
        return live.index_version

    def wrong_answers(self, version: int) -> int:
        """How many requests are not answered as this version must."""
        client = RetrieverClient(self.server.grpc_url, self.requests)
        answers = [(number, *client.ask(number)) for number in range(REQUESTS)]
        client.close()
        return sum(
            answered != version or not self._oracle.is_right(version, number, digest)
            for number, answered, digest in answers
        )

    def degraded(self) -> str:
        """What an answer says was given up."""
        answer = self.wire.unary(request(RETRIEVER, {"text_input": "bababa", "mode": "lexical"}))
        assert isinstance(answer, dict), answer
        return strings(answer["degraded"])[0].decode()

    def version(self) -> float:
        return self.wire.metric("tritonrag_index_version")

    def failed(self) -> float:
        return self.wire.metric("tritonrag_index_reloads", result="failed")

    def log(self) -> str:
        return self.server.log_path.read_text()

    def serves_live(self) -> bool:
        return self.version() == read_current(self.index.directory).index_version


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, record: EmbeddingRecord, embedder_dir: Path) -> Iterator[Served]:
    index = ChangingIndex(tmp_path_factory.mktemp("damage") / "index", embedder=record, documents=100)
    index.build()
    triton = TritonServer()
    with triton:
        one = Served(index, start(triton, index.directory, embedder_dir))
        yield one
        one.wire.close()
    assert triton.check_left_behind() == []


@pytest.fixture
def own(tmp_path: Path, record: EmbeddingRecord, embedder_dir: Path) -> Iterator[Served]:
    """As `served`, for a test that spoils it."""
    index = ChangingIndex(tmp_path / "index", embedder=record, documents=100)
    index.build()
    triton = TritonServer()
    with triton:
        one = Served(index, start(triton, index.directory, embedder_dir))
        yield one
        one.wire.close()
    assert triton.check_left_behind() == []


def publish_damaged(served: Served, spare: Path, name: str, damage: Damage) -> None:
    """Make a version live one of whose files is damaged from the moment that it is there."""
    directory = served.index.directory
    shutil.copytree(directory, spare)
    copy = ChangingIndex(spare, embedder=served.index.embedder, seed=FILES.index(name))
    copy.add()
    segment = read_current(spare).segments[-1].id
    damage(spare / SEGMENTS / segment / name)
    shutil.copytree(spare / SEGMENTS / segment, directory / SEGMENTS / segment)
    for folder in (MANIFESTS, SHARED):
        (directory / folder).mkdir(exist_ok=True)
        for file in (spare / folder).glob("*"):
            if not (target := directory / folder / file.name).exists():
                shutil.copy(file, target)
    set_current(directory, read_current_name(spare))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_version_with_a_damaged_file_is_never_taken_up_and_the_file_is_told(
    served: Served, tmp_path: Path, name: str, damage: str
) -> None:
    old = served.learn()
    assert wait_until(served.serves_live)
    failed = served.failed()
    publish_damaged(served, tmp_path / "spare", name, DAMAGES[damage])
    segment = read_current(served.index.directory).segments[-1].id
    try:
        assert wait_until(lambda: served.failed() > failed)
        assert served.version() == old
        assert served.wrong_answers(old) == 0
        assert served.degraded() == ""
        told = [line for line in served.log().splitlines() if f"{segment}/{name}" in line]
        assert told
        assert all("goes on serving" in line for line in told)
    finally:
        rollback(served.index.directory, old)
        shutil.rmtree(served.index.directory / SEGMENTS / segment)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 99}, "its format is 99"),
        ({"format_version": "2"}, "format_version"),
        ({"a_new_key": 1}, "a_new_key"),
        ({"segments": "none"}, "segments"),
    ],
)
def test_a_manifest_of_the_future_is_not_taken_up_and_says_why(
    served: Served, change: dict[str, object], said: str
) -> None:
    old = served.learn()
    assert wait_until(served.serves_live)
    failed, directory = served.failed(), served.index.directory
    manifest = json.loads((directory / MANIFESTS / read_current_name(directory)).read_text())
    data = json.dumps({**manifest, "index_version": 90_000_000, **change}).encode()
    name = manifest_name(90_000_000, data)
    (directory / MANIFESTS / name).write_bytes(data)
    set_current(directory, name)
    try:
        assert wait_until(lambda: served.failed() > failed)
        assert served.version() == old
        assert served.wrong_answers(old) == 0
        assert any(said in line and "goes on serving" in line for line in served.log().splitlines())
    finally:
        rollback(directory, old)
        (directory / MANIFESTS / name).unlink()
    assert wait_until(served.serves_live)


def test_files_that_are_replaced_under_the_server_change_nothing(served: Served) -> None:
    """As `rsync` and `cp` to another name do it: what is mapped is what was there."""
    old = served.learn()
    assert wait_until(served.serves_live)
    for segment in read_current(served.index.directory).segments:
        for path in list((served.index.directory / SEGMENTS / segment.id).iterdir()):
            kept = path.read_bytes()
            path.unlink()
            path.write_bytes(b"nonsense")
            path.unlink()
            path.write_bytes(kept)
    assert served.wrong_answers(old) == 0
    assert served.degraded() == ""


def test_an_index_that_is_removed_is_served_on_and_the_loss_is_told(own: Served) -> None:
    old, failed = own.learn(), own.failed()
    away = own.index.directory.with_name("away")
    own.index.directory.rename(away)
    shutil.rmtree(away)
    assert wait_until(lambda: own.failed() > failed)
    assert own.wrong_answers(old) == 0
    assert "there is no index at" in own.log()


def test_bits_that_flip_in_a_served_file_are_told_with_every_answer(own: Served) -> None:
    """The file is mapped, so a changed passage is what the server reads. It can't know the right one; it says that it does not."""
    old = own.learn()
    assert own.degraded() == ""
    directory = own.index.directory
    segment = read_current(directory).segments[0].id
    path = directory / SEGMENTS / segment / "passages.bin"
    kept = path.read_bytes()
    flip(path)
    assert wait_until(lambda: f"{segment}/passages.bin was changed" in own.degraded())
    assert own.wire.metric("tritonrag_index_degraded") == 1
    assert wait_until(lambda: told_in(own.log()) == 1)
    path.write_bytes(kept)
    assert own.wrong_answers(old) == 0
    assert told_in(own.log()) == 1
    assert own.degraded() != "", "it is doubted until another version is served"
    own.index.add()
    new = own.learn()
    assert wait_until(own.serves_live)
    assert new != old
    assert own.degraded() == ""
    assert own.wire.metric("tritonrag_index_degraded") == 0
    assert own.wrong_answers(new) == 0


@pytest.mark.parametrize("told_before", [True, False])
@pytest.mark.parametrize("change", ["add", "delete"])
def test_a_version_that_keeps_a_damaged_segment_is_not_taken_up(own: Served, change: str, told_before: bool) -> None:
    """Whoever writes the next version does not read all of what it keeps, so it is made, and must be refused by those who serve."""
    old, directory = own.learn(), own.index.directory
    segment = read_current(directory).segments[0].id
    path = directory / SEGMENTS / segment / "passages.bin"
    kept = path.read_bytes()
    flip(path)
    if told_before:
        assert wait_until(lambda: own.degraded() != "")
    getattr(own.index, change)()
    assert segment in [record.id for record in read_current(directory).segments]
    assert wait_until(lambda: own.failed() > 0)
    assert own.version() == old
    assert f"{segment}/passages.bin was changed" in own.degraded()
    path.write_bytes(kept)
    new = own.learn()
    assert new != old
    assert wait_until(own.serves_live)
    assert own.degraded() == ""
    assert own.wrong_answers(new) == 0


def told_in(log: str) -> int:
    return sum("passages.bin was changed" in line for line in log.splitlines())


@pytest.mark.parametrize("name", ["vectors.npy", "passages.bin", "terms.rows.npy"])
def test_a_served_file_that_is_truncated_gives_no_wrong_answer(own: Served, name: str) -> None:
    """Reading behind the end of a mapped file is SIGBUS: the process ends, and whoever watches it must start it again.

    Until it reads there, it says that its answers may be wrong; after that, every request gets an error.
    """
    own.learn()
    before = processes(own.server)
    directory = own.index.directory
    path = directory / SEGMENTS / read_current(directory).segments[0].id / name
    empty(path)
    told = 0

    def ended_or_told() -> bool:
        nonlocal told
        message = request(RETRIEVER, {"text_input": "bababa kekeke", "mode": "lexical"})
        answer = own.wire.unary(message)
        if not isinstance(answer, dict):
            return True
        told += "was changed" in strings(answer["degraded"])[0].decode()
        return told > 3

    assert wait_until(ended_or_told)
    if not all_live(before):
        answer = own.wire.unary(request(RETRIEVER, {"text_input": "bababa", "mode": "lexical"}))
        assert not isinstance(answer, dict)
