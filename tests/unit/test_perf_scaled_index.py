"""Indexes of any size out of one that is there, and the table of how their kinds are served."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from index_fakes import add, build, document, documents
from test_perf_report import figures, measured

from tritonrag_backends.choices import Kind
from tritonrag_backends.index import Index, Query
from tritonrag_backends.index.format import SEGMENTS, Manifest
from tritonrag_backends.index.operations import delete_documents, verify
from tritonrag_backends.index.store import open_queries, read_current
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, InternalError
from tritonrag_perf import replicas, scaled_index, scaled_kinds, served_kinds
from tritonrag_perf.figures import Figures, Round
from tritonrag_perf.load import Load
from tritonrag_perf.replicas import COSINE, Replicas
from tritonrag_perf.scaled_kinds import build_kinds, build_siblings
from tritonrag_perf.server_time import StageTime
from tritonrag_perf.sizes import parse_size, size_name

OWN = 60  # passages of the source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Sixty passages of twenty documents."""
    build(tmp_path / "source", documents(OWN // 3), mode="hybrid")
    return tmp_path / "source"


def opened(directory: Path) -> Index:
    return Index.open(directory, fingerprint=None)


def passages(index: Index) -> list[Passage]:
    return [Passage.from_json(data) for data in index.all_passages()]


def vectors(index: Index) -> np.ndarray:
    return np.concatenate([segment.files.vectors.block(0, segment.rows) for segment in index.segments])


def first_ids(index: Index) -> np.ndarray:
    return index.segments[0].ids(np.arange(OWN))


def scaled(source: Path, rows: int, kind: Kind = "flat", **options: object) -> Index:
    (built,) = build_kinds(source, source.parent / f"scaled-{rows}", rows=rows, kinds=[kind], **options)  # type: ignore[arg-type]
    return opened(built.directory)


def test_the_sources_own_passages_come_first_and_are_as_they_were(source: Path) -> None:
    own, large = opened(source), scaled(source, 3 * OWN)
    assert [one.text for one in passages(large)[:OWN]] == [one.text for one in passages(own)]
    assert large.documents_of(first_ids(large)) == own.documents_of(first_ids(own))
    assert np.allclose(vectors(large)[:OWN], vectors(own), atol=1e-6)


def test_a_replicas_vector_has_the_cosine_to_its_original_that_is_told(source: Path) -> None:
    found = vectors(scaled(source, 3 * OWN))
    for copy in (found[OWN : 2 * OWN], found[2 * OWN :]):
        assert np.allclose(np.einsum("nd,nd->n", copy, found[:OWN]), COSINE, atol=1e-5)
    assert not np.allclose(found[OWN : 2 * OWN], found[2 * OWN :])


def test_a_replica_lacks_some_words_of_its_original_and_adds_none(source: Path) -> None:
    every = passages(scaled(source, 2 * OWN))
    fewer = 0
    for original, replica in zip(every[:OWN], every[OWN:], strict=True):
        words, others = Counter(replica.text.split()), Counter(original.text.split())
        assert words <= others
        assert words
        assert len(replica.text) == replica.end - replica.start
        fewer += words != others
    assert fewer > OWN / 2


def test_a_replica_is_a_document_of_its_own_and_says_its_number(source: Path) -> None:
    index = scaled(source, 3 * OWN, "hnsw")
    ids = [name.partition("#copy-") for name in index.document_ids()]
    assert len(ids) == len(set(ids)) == 3 * OWN // 3
    assert Counter(copy for _, _, copy in ids) == {"": 20, "1": 20, "2": 20}
    assert [one.metadata["copy"] for one in passages(index)] == [0] * OWN + [1] * OWN + [2] * OWN


def test_fewer_passages_than_there_are_are_spread_evenly(source: Path) -> None:
    every = [one.text for one in passages(opened(source))]
    assert [one.text for one in passages(scaled(source, OWN // 4))] == every[::4]
    assert [one.text for one in passages(scaled(source, OWN))] == every
    last_turn = passages(scaled(source, OWN + 3))[OWN:]
    assert [(one.uri, one.metadata["copy"]) for one in last_turn] == [("d0.md", 1), ("d6.md", 1), ("d13.md", 1)]


def test_deleted_passages_stay_away_and_tenants_keep_theirs(tmp_path: Path) -> None:
    directory = tmp_path / "source"
    build(directory, [document("a.md", "one apple", "two apples"), document("a.md", "red apple", tenant="red")])
    add(directory, [document("b.md", "a bridge"), document("c.md", "a cloud", "more clouds")])
    delete_documents(directory, ["c.md"])
    index = scaled(directory, 8)
    assert set(index.document_keys) == {
        *[(None, "a.md"), ("red", "a.md"), (None, "b.md")],
        *[(None, "a.md#copy-1"), ("red", "a.md#copy-1"), (None, "b.md#copy-1")],
    }
    assert verify(tmp_path / "scaled-8/flat") == []


def test_the_same_seed_makes_the_same_files_and_another_seed_others(source: Path) -> None:
    def files(name: str, seed: int) -> Manifest:
        (built,) = build_kinds(source, source.parent / name, rows=100, kinds=["flat"], seed=seed)
        return built.manifest

    one, same, other = files("one", 0), files("same", 0), files("other", 1)
    assert one.segments[0].files == same.segments[0].files
    assert one.segments[0].files["vectors.npy"] != other.segments[0].files["vectors.npy"]


def test_passages_pass_in_blocks_of_bounded_size(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_BLOCK_ROWS", 7)
    blocks = list(Replicas(opened(source)).blocks(2 * OWN + 5))
    assert max(len(block.passages) for block in blocks) == 7
    assert sum(len(block.vectors) for block in blocks) == 2 * OWN + 5


def test_every_kind_is_a_whole_index_tuned_to_the_sources_queries(source: Path) -> None:
    kinds: list[Kind] = ["hnsw", "flat", "sq8", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"]
    queries = open_queries(source, read_current(source))
    assert queries is not None
    built = list(build_kinds(source, source.parent / "kinds", rows=150, kinds=kinds, mode="dense"))
    assert [one.segment.kind for one in built] == kinds
    for one in built:
        assert verify(one.directory) == []
        assert one.manifest.options.kind == one.segment.kind == one.directory.name
        assert one.segment.point.recall_at_10 is not None
        again = open_queries(one.directory, one.manifest)
        assert again is not None
        assert np.array_equal(again, queries)
        index = opened(one.directory)
        assert index.passage_count == 150
        assert index.default_mode == "dense"
        (hits,) = index.search([Query(embedding=vectors(index)[120], num_passages=1)])
        assert hits.passage_ids.tolist() == index.segments[0].ids(np.array([120])).tolist()


def test_kinds_share_all_files_but_their_own(source: Path) -> None:
    first, second = build_kinds(source, source.parent / "kinds", rows=100, kinds=["hnsw", "ivf_sq8"])
    one, other = (built.directory / SEGMENTS / built.segment.id for built in (first, second))
    shared = {path.name for path in one.iterdir() if path.samefile(other / path.name)}
    assert shared == {path.name for path in one.iterdir()} - {"ann.faiss"}
    assert first.segment.files["ann.faiss"] != second.segment.files["ann.faiss"]


def test_where_files_can_t_be_linked_they_are_copied(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    first, second = build_kinds(source, source.parent / "kinds", rows=100, kinds=["flat", "sq8"])
    names = (SEGMENTS, first.segment.id, "passages.bin")
    assert not first.directory.joinpath(*names).samefile(second.directory.joinpath(*names))
    assert verify(second.directory) == []


@pytest.mark.parametrize("stored", ["fp16", "int8"])
def test_vectors_may_be_stored_shorter(source: Path, stored: str) -> None:
    made = list(build_kinds(source, source.parent / stored, rows=100, kinds=["hnsw", "flat"], vectors=stored))  # type: ignore[arg-type]
    for one in made:
        assert one.manifest.vectors.type == stored
        assert verify(one.directory) == []
    list(build_kinds(made[0].directory, source.parent / "again", rows=150, kinds=["flat"]))
    assert verify(source.parent / "again/flat") == []


def test_the_wanted_recall_is_the_sources_or_the_given_one(source: Path) -> None:
    (as_source,) = build_siblings(source, source.parent / "as-source", kinds=["sq8"])
    (given,) = build_siblings(source, source.parent / "given", kinds=["sq8"], recall=0.7)
    assert (
        as_source.manifest.options.recall_target == Index.open(source, fingerprint=None).manifest.options.recall_target
    )
    assert given.manifest.options.recall_target == 0.7


def test_a_kind_can_be_added_beside_an_index_that_is_there(source: Path) -> None:
    (made,) = build_siblings(source, source.parent / "more", kinds=["ivf_flat"])
    assert verify(made.directory) == []
    assert passages(opened(made.directory)) == passages(opened(source))
    assert made.manifest.options.mode == "hybrid"


def test_shortened_vectors_keep_their_projection(tmp_path: Path) -> None:
    build(tmp_path / "short", documents(20), dims=8)
    (made,) = build_siblings(tmp_path / "short", tmp_path / "more", kinds=["sq8"])
    assert made.manifest.vectors == read_current(tmp_path / "short").vectors
    assert verify(made.directory) == []
    with pytest.raises(BadRequestError, match="8 values where the model makes 16"):
        list(build_kinds(tmp_path / "short", tmp_path / "scaled", rows=10, kinds=["flat"]))


def test_an_index_that_is_there_already_is_left_alone(source: Path) -> None:
    output = source.parent / "kinds"
    list(build_kinds(source, output, rows=10, kinds=["sq8"]))
    with pytest.raises(BadRequestError, match=r"already in .*sq8"):
        list(build_kinds(source, output, rows=20, kinds=["flat", "sq8"]))
    assert not (output / "flat").exists()
    assert opened(output / "sq8").passage_count == 10


def test_siblings_of_several_segments_are_refused(source: Path) -> None:
    add(source, [document("new.md", "a new one")])
    with pytest.raises(BadRequestError, match="2 segments"):
        list(build_siblings(source, source.parent / "more", kinds=["sq8"]))


def test_damage_is_not_copied_under_a_new_digest(source: Path) -> None:
    path = source / SEGMENTS / "000001" / "vectors.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for made in (build_siblings(source, source, kinds=["sq8"]), build_kinds(source, source, rows=9, kinds=["sq8"])):
        with pytest.raises(InternalError, match=r"vectors\.npy"):
            list(made)


def test_a_broken_run_can_be_repeated(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BadRequestError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(scaled_kinds, "complete_segment", fail)
        with pytest.raises(BadRequestError, match="broken"):
            scaled(source, 30)
    assert scaled(source, 30).passage_count == 30


def test_the_command_prints_a_row_a_kind(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = source.parent / "out"
    scaled_index.main(
        ["--index", str(source), "--rows", "1k", "--kinds", "ivf_pq,flat", "--mode", "dense", "--output", str(output)]
    )
    scaled_index.main(["--like", str(output / "flat"), "--kinds", "hnsw", "--output", str(output)])
    rows = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines()]
    assert [kind.strip() for kind, _ in rows] == ["kind", "---", "ivf_pq", "flat", "kind", "---", "hnsw"]
    assert {size.strip() for _, size in rows[2:4]} == {"1,000"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "1k", "--kinds", "flat,flat"], "each once"),
        (["--rows", "1k", "--kinds", "cagra"], "give some of flat"),
        (["--rows", "0", "--kinds", "flat"], "'0' is no number of passages"),
        (["--rows", "a lot", "--kinds", "flat"], "'a lot' is no number of passages"),
        (["--kinds", "flat"], "say how many with --rows"),
    ],
)
def test_the_command_says_what_is_wrong(
    source: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        scaled_index.main(["--index", str(source), "--output", str(source.parent / "out"), *options])
    assert message in f"{ended.value.code} {capsys.readouterr().err}"


def test_sizes_are_read_as_they_are_written() -> None:
    assert [parse_size(text) for text in ("10k", "1M", "127232")] == [10_000, 1_000_000, 127_232]
    assert [size_name(rows) for rows in (10_000, 1_500_000, 127_232)] == ["10k", "1500k", "127,232"]


def served(rate: float, clients: int) -> Round:
    """A round as `tritonrag bench` records it."""
    one = measured("retrieve", rate)
    retriever = StageTime(
        model="retriever", requests=100, failures=0, batch=2.0, queue_ms=0.1, input_ms=0.1, infer_ms=1.25, output_ms=0.1
    )
    return Round(
        load=Load(model="retrieve", concurrency=clients), measurement=one.measurement, stages=(*one.stages, retriever)
    )


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Path]:
    """Two records, of a small and of a large index."""
    fast = figures(served(100, 1), served(500, 32), served(700, 32), served(120, 1), measured("rag", 50))
    for name, sweep in {"retrieve-1M-hnsw": figures(served(50, 1)), "retrieve-10k-flat": fast}.items():
        write(tmp_path / f"{name}.json", sweep)
    yield tmp_path
    shutil.rmtree(tmp_path)


def write(path: Path, sweep: Figures) -> None:
    path.write_text(json.dumps(asdict(sweep)))


def collate(folder: Path, *more: str) -> str:
    paths = sorted(str(path) for path in folder.glob("retrieve-*.json"))
    served_kinds.main([*paths, "--output", str(folder / "out"), "--name", "served", *more])
    return (folder / "out/served.md").read_text(encoding="utf-8")


def test_the_table_has_a_row_for_each_index_by_size_then_kind(records: Path) -> None:
    rows = [line for line in collate(records, "--no-plot").splitlines() if line.startswith("| 1")]
    flat = [
        *("10k", "`flat`", "-", "-", "-"),
        *("110 (100-120)", "9.2 (8.3-10.0)", "36.7 (33.3-40.0)", "1.25 (1.25-1.25)"),
        *("600 (500-700)", "1.7 (1.4-2.0)", "6.9 (5.7-8.0)", "1.25 (1.25-1.25)", "0"),
    ]
    hnsw = [
        *("1M", "`hnsw`", "-", "-", "-"),
        *("50 (50-50)", "20.0 (20.0-20.0)", "80.0 (80.0-80.0)", "1.25 (1.25-1.25)", "-", "-", "-", "-", "0"),
    ]
    assert rows == [f"| {' | '.join(cells)} |" for cells in (flat, hnsw)]


def test_the_index_tells_recall_and_exact_size(records: Path, source: Path) -> None:
    (built,) = build_kinds(source, records / "made", rows=150, kinds=["hnsw"])
    page = collate(records, "--no-plot", "--index", f"retrieve-1M-hnsw={built.directory}")
    point = built.segment.point
    assert f"| 150 | `hnsw` | {point.recall_at_10:.3f} | {point.effort} | {point.rescore} |" in page


def test_the_page_says_how_it_was_made_and_the_json_has_every_figure(records: Path) -> None:
    page = collate(records)
    assert "Measured on 2026-01-02: Some CPU, 2 cores" in page
    assert "TRITONRAG_RETRIEVER_CACHE_BYTES=0" in page
    assert "(served.png)" in page
    assert (records / "out/served.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((records / "out/served.json").read_text())
    assert [one["name"] for one in data] == ["retrieve-10k-flat", "retrieve-1M-hnsw"]
    assert data[0]["loads"][1]["questions_per_s"] == {"median": 600.0, "low": 500.0, "high": 700.0}


def test_a_record_that_is_none_is_refused_by_name(records: Path) -> None:
    wrong = {"retrieve-1M-flat": {}, "retrieve-2M-flat": asdict(figures(measured("rag", 5)))}
    for name, record in wrong.items():
        path = records / f"{name}.json"
        path.write_text(json.dumps(record))
        with pytest.raises(BadRequestError, match=name):
            served_kinds.read_record(path)
    with pytest.raises(BadRequestError, match="missing"):
        served_kinds.read_record(records / "missing-1M-flat.json")
    with pytest.raises(BadRequestError, match="does not end in size and kind"):
        served_kinds.read_record(records / "first-figures.json")


def test_an_index_of_another_kind_or_of_no_record_is_refused(records: Path, source: Path) -> None:
    for named, message in {"retrieve-1M-hnsw": "named after kind hnsw", "other": "no record is named other"}.items():
        with pytest.raises(SystemExit, match=message):
            collate(records, "--no-plot", "--index", f"{named}={source}")
    with pytest.raises(SystemExit, match="NAME=DIR"):
        collate(records, "--no-plot", "--index", str(source))
