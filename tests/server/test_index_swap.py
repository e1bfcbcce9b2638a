"""An index that changes under a running server: each answer is that of the version it names; what is damaged is never served."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.server.wire import Wire
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_backends.index.change import set_current
from tritonrag_backends.index.format import CURRENT, MANIFESTS, SEGMENTS, EmbeddingRecord
from tritonrag_backends.index.operations import rollback
from tritonrag_backends.index.store import read_current, read_current_name, read_manifest
from tritonrag_backends.settings import EmbedderSettings, RetrieverSettings, Settings
from tritonrag_client.contract import RETRIEVER
from tritonrag_perf.index_swap import REQUESTS, change_under_load
from tritonrag_perf.swap_changes import CHANGE_KINDS, ChangingIndex
from tritonrag_perf.swap_corpus import make_requests
from tritonrag_perf.swap_load import RetrieverClient
from tritonrag_perf.swap_oracle import Oracle

CYCLES = 40
POLL_S = 0.05


@pytest.fixture(scope="module")
def embedder(embedder_dir: Path) -> EmbeddingRecord:
    """The record of an index that the server takes for one of its embedder."""
    manifest = EmbedderManifest.load(embedder_dir, verify=False)
    return EmbeddingRecord(
        name=manifest.name, fingerprint=manifest.fingerprint, dim=manifest.dim, precision="int8", template="{text}"
    )


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory, embedder: EmbeddingRecord) -> ChangingIndex:
    index = ChangingIndex(tmp_path_factory.mktemp("swap") / "index", embedder=embedder, documents=200)
    index.build()
    index.add()
    return index


@pytest.fixture(scope="module")
def swap_server(changing: ChangingIndex, embedder_dir: Path) -> Iterator[RunningServer]:
    settings = Settings(
        index=changing.directory,
        embedder=EmbedderSettings(model=embedder_dir, instances=2),
        retriever=RetrieverSettings(poll_s=POLL_S),
    )
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(settings=settings, models=(RETRIEVER,)))
    assert triton.check_left_behind() == []


@pytest.fixture
def swap_wire(swap_server: RunningServer) -> Iterator[Wire]:
    connection = Wire(swap_server)
    yield connection
    connection.close()


def served(wire: Wire) -> float:
    return wire.metric("tritonrag_index_version")


def reloads(wire: Wire, result: str) -> float:
    return wire.metric("tritonrag_index_reloads", result=result)


def test_every_answer_is_that_of_the_version_it_names(
    changing: ChangingIndex, swap_server: RunningServer, swap_wire: Wire
) -> None:
    before = reloads(swap_wire, "ok")
    result = change_under_load(changing, swap_server.grpc_url, cycles=CYCLES, clients=4)
    assert result.tally.named == []
    assert (result.tally.failures, result.tally.wrong) == (0, 0)
    assert sum(result.changes.values()) == CYCLES
    assert {"add", "delete", "rollback"} <= set(result.changes) <= set(CHANGE_KINDS)
    assert len(result.tally.versions) > CYCLES // 3
    assert result.tally.answers > 10 * CYCLES
    assert reloads(swap_wire, "ok") - before >= len(result.take_up_ms)
    assert reloads(swap_wire, "failed") == 0


def test_old_versions_are_let_go(changing: ChangingIndex, swap_server: RunningServer, swap_wire: Wire) -> None:
    def mappings() -> int:
        stubs = psutil.Process(swap_server.pid).children(recursive=True)
        return sum(
            str(changing.directory) in region.path for stub in stubs for region in stub.memory_maps(grouped=False)
        )

    for _ in range(3):
        changing.add()
    rollback(changing.directory)
    live = read_current(changing.directory)
    assert wait_until(lambda: served(swap_wire) == live.index_version)
    # Few versions share their segments, and each file is mapped once: what is mapped is what one version needs.
    files = sum(len(segment.files) for segment in live.segments)
    assert wait_until(lambda: mappings() <= files)


def damage_a_file(changing: ChangingIndex, name: str) -> Path:
    """Damage the newest segment that the manifest of this name needs."""
    manifest = json.loads((changing.directory / MANIFESTS / name).read_text())
    folder = changing.directory / SEGMENTS / manifest["segments"][-1]["id"]
    path = folder / "passages.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def publish_damaged(changing: ChangingIndex, spare: Path) -> tuple[str, Path]:
    """A new version of which one byte is wrong from the moment it is live; its manifest's name, and the file that is damaged."""
    shutil.copytree(changing.directory, spare / "index")
    copy = ChangingIndex(spare / "index", embedder=read_current(changing.directory).embedding, seed=1)
    copy.add()
    name = read_current_name(copy.directory)
    path = damage_a_file(copy, name)
    shutil.copytree(path.parent, changing.directory / SEGMENTS / path.parent.name)
    for folder in (MANIFESTS, "shared"):
        for file in (copy.directory / folder).glob("*"):
            if not (target := changing.directory / folder / file.name).exists():
                shutil.copy(file, target)
    set_current(changing.directory, name)
    return name, changing.directory / SEGMENTS / path.parent.name / path.name


def answers_are_right(changing: ChangingIndex, server: RunningServer, version: int) -> None:
    """Every answer is that of this version, which need not be the live one."""
    directory = changing.directory
    (name,) = (directory / MANIFESTS).glob(f"{version:08d}-*.json")
    requests = make_requests(REQUESTS, dim=changing.embedder.dim)
    oracle, client = Oracle(directory, requests), RetrieverClient(server.grpc_url, requests)
    oracle.learn(read_manifest(directory, name.name))
    for number in range(REQUESTS):
        answered, digest = client.ask(number)
        assert answered == version
        assert oracle.is_right(version, number, digest)
    client.close()


def test_a_damaged_version_is_not_served_and_the_old_one_goes_on(
    changing: ChangingIndex, swap_server: RunningServer, swap_wire: Wire, tmp_path: Path
) -> None:
    old = read_current(changing.directory).index_version
    assert wait_until(lambda: served(swap_wire) == old)
    failed, ok = reloads(swap_wire, "failed"), reloads(swap_wire, "ok")
    _, path = publish_damaged(changing, tmp_path)
    assert wait_until(lambda: reloads(swap_wire, "failed") >= failed + 3)
    answers_are_right(changing, swap_server, old)
    assert (served(swap_wire), reloads(swap_wire, "ok")) == (old, ok)
    told = [line for line in swap_server.log_path.read_text().splitlines() if "goes on serving" in line]
    assert len([line for line in told if f"{path.parent.name}/passages.bin" in line]) == 1

    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    new = read_current(changing.directory).index_version
    assert new != old
    assert wait_until(lambda: served(swap_wire) == new)
    answers_are_right(changing, swap_server, new)


def test_a_version_of_another_embedding_model_is_not_served(
    changing: ChangingIndex, swap_server: RunningServer, swap_wire: Wire
) -> None:
    old = read_current(changing.directory).index_version
    failed = reloads(swap_wire, "failed")
    other_model = replace(changing.embedder, name="another-model", fingerprint="0" * 64)
    other = ChangingIndex(changing.directory, embedder=other_model, seed=2)
    other.build()
    assert wait_until(lambda: reloads(swap_wire, "failed") > failed)
    answers_are_right(changing, swap_server, old)
    assert "another-model" in swap_server.log_path.read_text()
    rollback(changing.directory, old)


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"00000099-0123456789abcdef.json\n", None])
def test_a_current_that_is_damaged_or_gone_changes_nothing(
    changing: ChangingIndex, swap_server: RunningServer, swap_wire: Wire, content: bytes | None
) -> None:
    current = changing.directory / CURRENT
    kept, old, failed = (
        current.read_bytes(),
        read_current(changing.directory).index_version,
        reloads(swap_wire, "failed"),
    )
    if content is None:
        current.unlink()
    else:
        current.write_bytes(content)
    assert wait_until(lambda: reloads(swap_wire, "failed") > failed)
    answers_are_right(changing, swap_server, old)
    current.write_bytes(kept)
