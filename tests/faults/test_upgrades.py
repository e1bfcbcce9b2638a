"""New versions of the index, and then a new embedding model, under load: each answer is wholly that of one that was there."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.editions import Edition, Stay, faults
from tests.faults.serving import Serve, serving
from tests.faults.steady import Steady
from tests.faults.test_two_servers import ENOUGH, START_S
from tests.faults.test_two_servers import Serve as ServeOnPort
from tests.waiting import wait_until
from tritonrag.ports import choose_ports
from tritonrag.triton_command import CHECKOUT_REPOSITORY
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_backends.index import Index
from tritonrag_backends.index.manifest_json import manifest_version
from tritonrag_backends.index.store import manifest_names, read_current, read_manifest
from tritonrag_backends.settings import EmbedderSettings, Settings
from tritonrag_export.documents.chunking import chunk
from tritonrag_export.documents.model import Document
from tritonrag_export.documents.units import units_of
from tritonrag_export.indexing import build_index

HANDBOOK: Final = (
    "You parse a JSON document with the function loads, says edition {edition} of the handbook.",
    "You can read rows from a CSV file with a reader, says edition {edition} of the handbook.",
    "The function that gives the largest elements is nlargest, says edition {edition} of the handbook.",
    "You set the level of a logger with its own method, says edition {edition} of the handbook.",
    "A context manager does the setting up and the cleaning up, says edition {edition} of the handbook.",
    "The median is computed by taking the middle of the sorted data, says edition {edition} of the handbook.",
)
DELETED: Final = tuple(f"pydoc:{name}" for name in ("json", "csv", "heapq", "logging", "topics/with", "statistics"))
TARGET_TOKENS: Final = 80  # of the other model's index: its passages are others than those that were there


def handbook(folder: Path, edition: int) -> str:
    """A file of documents that answer the questions; those of another edition take their places."""
    path = folder / f"edition-{edition}.jsonl"
    pages = [{"id": f"page {n}", "text": text.format(edition=edition)} for n, text in enumerate(HANDBOOK)]
    path.write_text("\n".join(map(json.dumps, pages)))
    return str(path)


def are_told_apart(editions: Sequence[Edition]) -> bool:
    return all(one.differs(other) for one, other in combinations(editions, 2))


class UpgradedIndex:
    """A served index that `tritonrag index` changes; keeps from when until when each version could be answered from."""

    def __init__(self, directory: Path, serve: Serve) -> None:
        self._directory, self._serve = directory, serve
        self._since = {read_current(directory).index_version: -math.inf}
        self._past: list[tuple[int, float, float]] = []

    def change(self, *arguments: str) -> float:
        """Make a change and wait until every process serves what came of it; when that was so."""
        there, began_s = set(self._names()), time.monotonic()
        self._run(*arguments)
        live = read_current(self._directory).index_version
        assert wait_until(lambda: self._served() == {live}), f"{self._served()} instead of {live}"
        taken_up_s = time.monotonic()
        since = dict.fromkeys((set(self._names()) - there) | {live}, began_s) | self._since
        self._past += [(version, from_s, taken_up_s) for version, from_s in since.items() if version != live]
        self._since = {live: since[live]}
        return taken_up_s

    def stays(self, encoder: Encoder) -> list[Stay]:
        times, names = [*self._past, *((*one, math.inf) for one in self._since.items())], self._names()
        manifests = {version: read_manifest(self._directory, names[version]) for version, *_ in times}
        editions = {version: Edition(Index.of(self._directory, one), encoder) for version, one in manifests.items()}
        return [Stay(edition=editions[version], from_s=from_s, until_s=until_s) for version, from_s, until_s in times]

    def _run(self, *arguments: str) -> None:
        command = [str(Path(sys.executable).with_name("tritonrag")), "index", *arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TRITONRAG_")}
        command += ["--index", str(self._directory)]
        ended = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr

    def _names(self) -> dict[int, str]:
        names = manifest_names(self._directory)
        return {version: name for name in names if (version := manifest_version(name)) is not None}

    def _served(self) -> set[int]:
        """The version that each process serves."""
        url = f"http://{self._serve.said['host']}:{self._serve.said['metrics_port']}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
        return {int(sample.value) for sample in samples if sample.name == "tritonrag_index_version"}


def test_an_index_that_changes_under_load_is_answered_from_version_by_version(
    index_dir: Path, embedder_dir: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(index_dir, tmp_path / "index")
    embedder = ("--embedder", str(embedder_dir))
    changes = (
        ("add", handbook(tmp_path, 1), *embedder),
        ("delete", *DELETED),
        ("rollback", "2"),
        ("add", handbook(tmp_path, 2), *embedder),
    )
    variables = {"TRITONRAG_EMBEDDER_INSTANCES": "2", "TRITONRAG_CACHE_STORE": "memory"}
    with serving(tmp_path, index=directory, embedder=embedder_dir, arguments=(), **variables) as serve:
        index = UpgradedIndex(directory, serve)
        with Steady([serve.grpc_url]) as steady:
            assert wait_until(lambda: steady.ended_since(0))
            for change in changes:
                assert wait_until(partial(steady.ended_since, index.change(*change)))
        serve.stop()
    stays = index.stays(Encoder.open(embedder_dir))
    editions = {stay.edition.version: stay.edition for stay in stays}
    assert are_told_apart(list(editions.values()))
    assert faults(steady.asked, stays) == []
    assert {one.said.version for one in steady.asked if one.said and one.way == "search"} == set(editions)
    assert [stay.edition.version for stay in stays] == [1, 2, 3, 2, 4]


@pytest.fixture(scope="module")
def other_model(embedder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights behind prefixes: another vector space, which needs an index of its own."""
    folder = tmp_path_factory.mktemp("model") / "embedder"
    folder.mkdir()
    manifest = EmbedderManifest.load(embedder_dir, verify=False)
    for name in manifest.files:
        (folder / name).symlink_to(embedder_dir / name)
    fingerprint = hashlib.sha256(f"{manifest.fingerprint} with prefixes".encode()).hexdigest()
    prefixed = replace(manifest, name="with prefixes", query_prefix="query: ", passage_prefix="passage: ")
    replace(prefixed, fingerprint=fingerprint).save(folder)
    return folder


@pytest.fixture(scope="module")
def other_index(other_model: Path, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, encoder = tmp_path_factory.mktemp("other") / "index", Encoder.open(other_model, threads=2)
    asked_about = [document for document in documents if document.uri in DELETED]
    units = units_of(asked_about, lambda one: chunk(one, encoder, target_tokens=TARGET_TOKENS), lambda _: None)
    build_index(units, [encoder], folder)
    return folder


def test_another_embedding_model_comes_in_server_by_server(
    settings: Settings, other_model: Path, other_index: Path, tmp_path: Path
) -> None:
    other = Settings(index=other_index, embedder=EmbedderSettings(model=other_model))
    ended_s, begun_s = list[float](), list[float]()
    with ExitStack() as stack:

        def start(name: str, port: int, served: Settings) -> ServeOnPort:
            return stack.enter_context(ServeOnPort(served, CHECKOUT_REPOSITORY, tmp_path / name, port))

        def all_answer() -> bool:
            return all(server.answered() >= ENOUGH for server in servers.values())

        ports = choose_ports("127.0.0.1", {"one": 0, "other": 0})
        servers = {name: start(name, port, settings) for name, port in ports.items()}
        with Steady([server.url for server in servers.values()]) as steady:
            for name, port in ports.items():
                assert wait_until(all_answer, START_S)
                servers[name].end()
                ended_s.append(time.monotonic())
                begun_s.append(time.monotonic())
                servers[name] = start(f"{name}-anew", port, other)
            assert wait_until(all_answer, START_S)
            assert wait_until(lambda: steady.ended_since(begun_s[-1]))
    old, new = (
        Edition(Index.open(one.index, fingerprint=None), Encoder.open(one.embedder.model)) for one in (settings, other)
    )
    assert are_told_apart([old, new])
    stays = [Stay(edition=old, until_s=ended_s[-1]), Stay(edition=new, from_s=begun_s[0])]
    assert faults(steady.asked, stays) == []
