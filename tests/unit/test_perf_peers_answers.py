"""What peers search is what our index holds, and what they find is held to exact search."""

import importlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from index_fakes import document, unit_vectors

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index import Index, Query
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError
from tritonrag_export.indexing import BuildOptions, build_index
from tritonrag_perf.peers.__main__ import main as measure
from tritonrag_perf.peers.catalog import PEERS, SOURCES, Peer, environment, peer_named
from tritonrag_perf.peers.checking import Oracle
from tritonrag_perf.peers.contenders import PeerContender
from tritonrag_perf.peers.exact import best_rows, recall, same_answer
from tritonrag_perf.peers.export import Exported, export, least_effort, main
from tritonrag_perf.peers.load_process import connected
from tritonrag_perf.peers.wire import Found, parse, request

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENTS = REPOSITORY / ".tritonrag" / "peers"
QUESTIONS = ("What grows in a garden?", "Who crosses the bridge?", "Where do ships lie at night?")
TEXTS = ("Roses grow in the garden.", "A bridge crosses the river.\nTwo lines.", "Ships lie in the harbour.", "Straße")


@pytest.fixture(scope="module")
def index(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("peers") / "index"
    units = [document(f"d{i}", f"{text} Again {i}.") for i in range(5) for text in TEXTS[i % 4 :]]
    units = [replace(unit, id=f"{unit.id}-{number}") for number, unit in enumerate(units)]
    build_index(units, [encoder], directory, options=BuildOptions(mode="hybrid"))
    return directory


@pytest.fixture(scope="module")
def data(index: Path, embedder_dir: Path) -> Path:
    output = index.parent / "data"
    export(index, embedder_dir, output)
    return output


def ours(index: Path, encoder: Encoder, k: int = 3) -> list[Found]:
    """What our own search finds."""
    opened = Index.open(index, fingerprint=encoder.fingerprint)
    vectors = encoder.encode(QUESTIONS).vectors
    hits = opened.search([Query(embedding=v, num_passages=k, mode="dense") for v in vectors])
    return [
        Found(
            ids=tuple(hit.passage_ids.tolist()),
            scores=tuple(hit.scores.tolist()),
            texts=tuple(Passage.from_json(one).text for one in opened.passages(hit.passage_ids)),
        )
        for hit in hits
    ]


def test_what_is_exported_is_the_index(index: Path, data: Path) -> None:
    opened = Index.open(index, fingerprint=None)
    lines = (data / "passages.jsonl").read_bytes().splitlines()
    ids, vectors = np.load(data / "ids.npy"), np.load(data / "vectors.npy")
    assert lines == list(opened.all_passages()) == opened.passages(ids)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    exported = Exported.read(data)
    assert (exported.kind, exported.ef_search, exported.passages) == ("flat", 0, len(lines))
    assert Path(exported.weights, "model.safetensors").is_file()
    searched = faiss.read_index(str(data / "index.faiss"))
    np.testing.assert_array_equal(searched.search(vectors, 1)[1][:, 0], best_rows(vectors, vectors, 1)[:, 0])


def test_the_command_exports_a_graph_too(
    index: Path, embedder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--index", str(index), "--embedder", str(embedder_dir), "--output", str(tmp_path)]
    main([*where, "--kind", "hnsw", "--recall", "0.9"])
    assert "hnsw" in capsys.readouterr().out
    assert Exported.read(tmp_path).ef_search > 0


def test_the_effort_of_a_graph_is_the_least_that_finds_enough() -> None:
    vectors, questions = unit_vectors(3000, 32), unit_vectors(60, 32, seed=1)
    graph = faiss.index_factory(32, "HNSW4,Flat", faiss.METRIC_INNER_PRODUCT)
    graph.add(vectors)
    low, high = (least_effort(graph, vectors, questions, target) for target in (0.3, 0.95))
    assert low < high
    with pytest.raises(BadRequestError, match=r"recall of 1\.1"):
        least_effort(graph, vectors, questions, 1.1)


def test_our_own_answers_are_exact_and_a_wrong_one_is_noticed(index: Path, data: Path, encoder: Encoder) -> None:
    oracle = Oracle(data, QUESTIONS, 3)
    found = ours(index, encoder)
    checked = oracle.judge(found, "int8")
    assert checked.exact_share == 1
    assert checked.recall_at_k > 0.6
    wrong = worst(index, encoder)
    assert oracle.judge([wrong, *found[1:]], "int8").exact_share == pytest.approx(2 / 3)
    assert oracle.judge([replace(found[0], ids=(), scores=(), texts=()), *found[1:]], "int8").exact_share < 1


def worst(index: Path, encoder: Encoder) -> Found:
    """The last three passages instead of the first."""
    every = ours(index, encoder, k=12)[0]
    return Found(ids=every.ids[-3:], scores=every.scores[-3:], texts=every.texts[-3:])


def test_a_passage_under_another_ones_id_is_refused(index: Path, data: Path, encoder: Encoder) -> None:
    found = ours(index, encoder)
    swapped = replace(found[0], texts=found[0].texts[::-1])
    with pytest.raises(InternalError, match="not its own"):
        Oracle(data, QUESTIONS, 3).judge([swapped, *found[1:]], "int8")


def test_exact_search_and_recall_by_hand() -> None:
    vectors = np.eye(4, dtype=np.float32)
    questions = np.array([[0.1, 0.9, 0.5, 0.0], [1, 1, 0, 0]], np.float32)
    rows = best_rows(vectors, questions, 2)
    assert rows.tolist() == [[1, 2], [0, 1]]
    assert recall(np.array([[2, 3], [1, -1]]), rows) == 0.5
    assert same_answer([0.9, 0.5], [0.9, 0.50001], tolerance=1e-4)
    assert not same_answer([0.9], [0.9, 0.5], tolerance=1e-4)
    assert not same_answer([0.9, 0.4], [0.9, 0.5], tolerance=1e-4)


def test_the_peers_encoder_gives_our_vectors_and_pads_little(
    data: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SOURCES))
    theirs = importlib.import_module("peers.encoder")
    texts = [*QUESTIONS, "word " * 400, "a", ""]
    np.testing.assert_allclose(theirs.Encoder(data).encode(texts), encoder.encode(texts).vectors, atol=2e-2)
    lengths = [5, 30, 6, 5, 29, 5, 5, 5, 5, 5, 5, 5]
    made = list(theirs.groups(lengths))
    assert sorted(place for group in made for place in group) == list(range(len(lengths)))
    assert all(max(lengths[p] for p in group) <= 1.25 * min(lengths[p] for p in group) for group in made)
    assert list(theirs.groups([])) == []


def test_every_peer_has_its_sources_and_a_lock_with_hashes() -> None:
    folders = {path.parent.name for path in (SOURCES / "peers").glob("*/requirements.lock")}
    assert folders == set(PEERS)
    tested = (REPOSITORY / "requirements" / "demo.lock").read_text()
    for name in folders:
        folder = SOURCES / "peers" / name
        assert (folder / "__main__.py").is_file()
        lock = (folder / "requirements.lock").read_text()
        assert "--hash=sha256:" in lock
        assert "://" not in lock
        for ours_too in ("faiss-cpu", "onnxruntime"):
            version = next((line.split(" ")[0] for line in lock.splitlines() if line.startswith(f"{ours_too}==")), None)
            assert version is None or f"\n{version} " in f"\n{tested}"


def test_a_peer_gets_one_thread_its_place_and_nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITONRAG_INDEX", "secret")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    given = environment(PEERS["ray_serve"], data=tmp_path, port=99, cores=2)
    assert given["OMP_NUM_THREADS"] == "1"
    assert given["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert given["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert (given["PEER_DATA"], given["PEER_PORT"], given["PEER_CORES"]) == (str(tmp_path), "99", "2")
    assert given["PYTHONPATH"] == str(SOURCES)
    assert "TRITONRAG_INDEX" not in given


def test_variants_differ_in_their_settings_and_names() -> None:
    first, *others = PEERS["mosec_ort"].variants()
    assert first.shown == "mosec_ort"
    assert first.variables == {}
    assert others
    assert len({one.shown for one in others}) == len(others)
    assert all("PEER_BATCH" in one.variables and one.module == first.module for one in others)


def test_a_peer_that_is_not_there_or_not_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="fastapi_ort"):
        peer_named("flask")
    with pytest.raises(NotFoundError, match="make peer NAME=txtai"):
        PEERS["txtai"].python(tmp_path)


def test_the_command_says_what_is_wrong_before_it_measures(index: Path, tmp_path: Path) -> None:
    where = ["--index", str(index), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="no peer 'flask'"):
        measure([*where, "--peers", "flask"])
    with pytest.raises(SystemExit, match="make peer NAME=txtai"):
        measure([*where, "--peers", "txtai", "--environments", str(tmp_path)])
    assert not (tmp_path / "out").exists()


def test_the_record_tells_how_to_do_it_again(index: Path, embedder_dir: Path, tmp_path: Path) -> None:
    where = ["--index", str(index), "--embedder", str(embedder_dir), "--output", str(tmp_path)]
    measure([*where, "--peers", "--no-ours", "--count", "3", "--clients", "1", "2", "--name", "none"])
    command = json.loads((tmp_path / "none.json").read_text())["command"]
    assert "--clients 1 2 --rounds 5" in command
    assert command.endswith("--no-ours")
    assert str(tmp_path) not in command
    assert (tmp_path / "none.md").is_file()


def made(peer: Peer) -> bool:
    try:
        return peer.python(ENVIRONMENTS).exists()
    except NotFoundError:
        return False


@pytest.mark.parametrize("name", PEERS)
async def test_a_peer_whose_environment_is_made_finds_what_exact_search_finds(
    name: str, data: Path, tmp_path: Path
) -> None:
    peer = PEERS[name]
    if not made(peer):
        pytest.skip(f"`make peer NAME={name}` was not done")
    contender = PeerContender(peer=peer, python=peer.python(ENVIRONMENTS), data=data, logs=tmp_path)
    with contender.running() as running:
        (endpoint,) = running.endpoints
        found = await answers(endpoint.address, QUESTIONS)
    checked = Oracle(data, QUESTIONS, 3).judge(found, peer.precision)
    assert checked.exact_share == 1
    assert all(len(one.ids) == 3 for one in found)


async def answers(address: str, questions: Sequence[str]) -> list[Found]:
    async with connected("peer", address, clients=1) as ask:
        return [parse("peer", await ask(request("peer", question, 3))) for question in questions]
