"""Promises of building: every passage once, in order, with a bounded memory, never half a version, and no embedding made twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_fakes import DIM, FakeEncoder, add, build, document, documents, passage, unit_vectors

from tritonrag_backends.index import Index, Query
from tritonrag_backends.index.format import RESUME
from tritonrag_backends.index.operations import status, verify
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, NotFoundError
from tritonrag_export.documents.finding import Skipped
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_export.indexing import BuildOptions, BuildProgress, add_documents, build_index
from tritonrag_export.indexing.encoding import embedding_text


def passages_of(index: Index) -> list[Passage]:
    return [Passage.from_json(segment.passage(row)) for segment in index.segments for row in range(segment.rows)]


def test_every_passage_is_found_by_its_own_vector_and_stands_in_the_order_of_the_documents(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    summary = build_index(
        documents(20), [encoder, FakeEncoder()], tmp_path / "a" / "index", options=BuildOptions(mode="dense")
    )
    index = Index.open(tmp_path / "a" / "index", fingerprint="f1")
    expected = [one for unit in documents(20) for one in unit.passages]
    assert passages_of(index) == expected
    vectors = encoder.encode([embedding_text(one) for one in expected]).vectors
    hits = index.search([Query(embedding=vector, num_passages=1) for vector in vectors])
    assert [int(hit.passage_ids[0]) & 0xFFFFFFFF for hit in hits] == list(range(60))
    assert (summary.documents, summary.passages, summary.segments[0].kind, summary.index_version) == (20, 60, "flat", 1)
    assert summary.index_bytes == sum(path.stat().st_size for path in (tmp_path / "a/index/segments/000001").iterdir())


def test_the_manifest_tells_model_template_and_counts(tmp_path: Path) -> None:
    unread = [Skipped(path="x.pdf", reason="is no PDF; leave it out")]
    build_index(documents(3), [FakeEncoder()], tmp_path, skipped=unread)
    manifest = Index.open(tmp_path, fingerprint="f1").manifest
    assert (manifest.counts.documents, manifest.counts.passages, manifest.counts.skipped) == (3, 9, 1)
    assert (manifest.embedding.name, manifest.embedding.precision) == ("fake", "fp32")
    assert manifest.embedding.template.format(title="T", text="x") == embedding_text(passage("x"))


def test_passages_are_embedded_window_by_window_and_progress_is_told_after_each(tmp_path: Path) -> None:
    encoders = [FakeEncoder(), FakeEncoder()]
    told: list[BuildProgress] = []
    units = [document(f"d{i}", f"text {i}", f"long {i}" if i < 4 else f"other {i}", f"third {i}") for i in range(300)]
    summary = build_index(units, encoders, tmp_path, progress=told.append)
    assert all(encoder.calls[-1] == 256 for encoder in encoders), "512 questions, a half each"
    assert max(call for encoder in encoders for call in encoder.calls) == 256
    assert [entry.passages for entry in told if entry.what == "embedding"] == [0, 256, 512, 768, 900]
    assert summary.truncated == 4


def test_passages_are_embedded_as_passages_and_what_the_index_is_tuned_with_as_queries(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    build_index(documents(400), [encoder], tmp_path)  # 1,200 passages, 5 windows
    assert encoder.input_types == [*["passage"] * 5, "query"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_build_that_was_broken_off_goes_on_without_embedding_anything_again(tmp_path: Path, workers: int) -> None:
    units = documents(400)  # 1,200 passages, 5 windows

    class Failing(FakeEncoder):
        def encode(self, texts, **options):  # noqa: ANN001, ANN003, ANN202
            if "document 300 " in "".join(texts):
                raise BadRequestError("broken off")
            return super().encode(texts, **options)

    with pytest.raises(BadRequestError, match="broken off"):
        build_index(units, [Failing() for _ in range(workers)], tmp_path)
    with pytest.raises(NotFoundError):
        Index.open(tmp_path, fingerprint="f1")
    again = FakeEncoder()
    summary = build_index([document("new", "first"), *units[1:]], [again], tmp_path)
    assert summary.reused >= 500
    assert sum(again.calls) == summary.passages - summary.reused + 512  # the last are the queries to tune with
    whole = build_index([document("new", "first"), *units[1:]], [FakeEncoder()], tmp_path / "whole")
    resumed, fresh = Index.open(tmp_path, fingerprint="f1"), Index.open(tmp_path / "whole", fingerprint="f1")
    assert passages_of(resumed) == passages_of(fresh)
    assert {name: file.sha256 for name, file in summary.segments[0].files.items()} == {
        name: file.sha256 for name, file in whole.segments[0].files.items()
    }
    assert not (tmp_path / RESUME).exists()


def test_a_journal_that_is_torn_or_of_another_model_is_not_used_where_it_is_wrong(tmp_path: Path) -> None:
    class Failing(FakeEncoder):
        def encode(self, texts, **options):  # noqa: ANN001, ANN003, ANN202
            if "document 300 " in "".join(texts):
                raise BadRequestError("broken off")
            return super().encode(texts, **options)

    with pytest.raises(BadRequestError, match="broken off"):
        build_index(documents(400), [Failing()], tmp_path)
    (journal,) = (tmp_path / RESUME).iterdir()
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    other = build_index(documents(400), [FakeEncoder(fingerprint="f2")], tmp_path)
    assert other.reused == 0


def test_a_large_input_is_dealt_to_segments_and_no_document_is_parted(tmp_path: Path) -> None:
    units = [document(f"d{i}", *(f"text {i} {j}" for j in range(7))) for i in range(200)]
    manifest = build(tmp_path, units, segment_passages=500)
    assert [one.rows for one in manifest.segments] == [518, 511, 371]
    index = Index.open(tmp_path, fingerprint="f1")
    assert passages_of(index) == [one for unit in units for one in unit.passages]
    assert sorted(index.document_ids()) == sorted(unit.id for unit in units)


def test_an_id_that_comes_twice_is_refused_by_name_before_it_is_embedded(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"document id 'd0\.md' comes twice"):
        build(tmp_path, [*documents(2), document("d0.md", "x")])
    with pytest.raises(BadRequestError, match="document id 'a' of tenant 't' comes twice"):
        build(tmp_path, [document("a", "x", tenant="t"), document("a", "y"), document("a", "z", tenant="t")])
    build(tmp_path, documents(2))
    with pytest.raises(BadRequestError, match="comes twice"):
        add(tmp_path, [document("a", "x"), document("a", "x")])
    assert status(tmp_path).manifest.index_version == 1


def test_nothing_to_index_is_an_error_that_tells_what_was_looked_at_and_the_old_version_stays(tmp_path: Path) -> None:
    build(tmp_path, documents(2))
    unread = [Skipped(path="junk.bin", reason="is binary; leave it out")]
    with pytest.raises(
        BadRequestError, match=r"nothing to index: 0 documents .* 1 files skipped; the first: junk\.bin is binary"
    ):
        build_index([], [FakeEncoder()], tmp_path, skipped=unread)
    assert Index.open(tmp_path, fingerprint="f1").version == 1


def test_a_new_build_replaces_the_passages_and_keeps_the_old_manifest(tmp_path: Path) -> None:
    build(tmp_path, documents(2))
    assert build(tmp_path, documents(1)).index_version == 2
    assert Index.open(tmp_path, fingerprint="f1").passage_count == 3
    assert len(list((tmp_path / "manifests").iterdir())) == 2


def test_an_error_while_reading_leaves_the_old_version_and_the_next_build_works(tmp_path: Path) -> None:
    def failing():  # noqa: ANN202
        yield from documents(1)
        raise BadRequestError("x")

    build(tmp_path, documents(2))
    with pytest.raises(BadRequestError, match="x"):
        build_index(failing(), [FakeEncoder()], tmp_path)
    assert Index.open(tmp_path, fingerprint="f1").version == 1
    assert build(tmp_path, documents(2)).index_version == 2


def test_a_passage_without_a_json_form_is_refused_by_name(tmp_path: Path) -> None:
    wrong = DocumentPassages(id="d", tenant=None, passages=(passage("x", uri="d0.md", when=object()),))
    with pytest.raises(BadRequestError, match=r"'d0\.md':0 has no JSON form"):
        build(tmp_path, [wrong])


def test_an_encoder_that_returns_nan_stops_the_build(tmp_path: Path) -> None:
    class Broken(FakeEncoder):
        def encode(self, texts, **options):  # noqa: ANN001, ANN003, ANN202
            embedded = super().encode(texts, **options)
            embedded.vectors[1] = np.nan
            return embedded

    with pytest.raises(BadRequestError, match=r"d0\.md:\d+ has length nan"):
        build_index(documents(1), [Broken()], tmp_path)


def test_another_models_documents_are_not_added(tmp_path: Path) -> None:
    build(tmp_path, documents(2))
    with pytest.raises(BadRequestError, match=r"fake \(fingerprint f1\).*other \(fingerprint f2\)"):
        add_documents(documents(3), [FakeEncoder(name="other", fingerprint="f2")], tmp_path)
    with pytest.raises(NotFoundError, match="tritonrag index build"):
        add_documents(documents(3), [FakeEncoder()], tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# --- vectors that somebody has made already ---


def given(tmp_path: Path, vectors: np.ndarray) -> Path:
    path = tmp_path / "vectors.npy"
    np.save(path, vectors)
    return path


def own_vectors(units: list[DocumentPassages]) -> np.ndarray:
    return FakeEncoder().encode([embedding_text(one) for unit in units for one in unit.passages]).vectors


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_given_vectors_are_used_in_the_order_of_the_passages_and_nothing_else_is_embedded(
    tmp_path: Path, dtype: type
) -> None:
    units = documents(400)
    vectors = 3 * own_vectors(units)
    encoder = FakeEncoder()
    summary = build_index(
        units,
        [encoder],
        tmp_path / "index",
        vectors=given(tmp_path, vectors.astype(dtype)),
        options=BuildOptions(mode="dense"),
    )
    assert sum(encoder.calls) == 32 + 512  # a look at what made them, and the queries to tune with
    index = Index.open(tmp_path / "index", fingerprint="f1")
    (hits,) = index.search([Query(embedding=vectors[777] / np.linalg.norm(vectors[777]), num_passages=1)])
    assert (int(hits.passage_ids[0]) & 0xFFFFFFFF, summary.passages) == (777, 1200)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda v: v[:-1], "holds 1199 vectors and there are more passages"),
        (lambda v: np.concatenate([v, v[:1]]), "holds 1201 vectors and there are 1200 passages"),
        (lambda v: v[:, :-1], r"shape \[1200, 15\].*16 values"),
        (lambda v: v[0], r"shape \[16\]"),
        (lambda v: v.astype(int), "int64"),
        (lambda v: np.where(np.arange(1200)[:, None] == 5, np.nan, v), "vector 5 has length nan"),
        (lambda v: np.where(np.arange(1200)[:, None] == 600, 0, v), "vector 600 has length 0"),
        (lambda _: unit_vectors(1200, DIM, 99), "was not made by the embedding model fake: the mean cosine"),
    ],
)  # fmt: skip
def test_given_vectors_that_do_not_belong_are_refused_and_nothing_is_published(
    tmp_path: Path, spoil: Any, said: str
) -> None:
    units = documents(400)
    path = given(tmp_path, spoil(own_vectors(units)))
    with pytest.raises(BadRequestError, match=said):
        build_index(units, [FakeEncoder()], tmp_path / "index", vectors=path)
    with pytest.raises(NotFoundError):
        Index.open(tmp_path / "index", fingerprint="f1")


def test_what_is_no_npy_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    path.write_bytes(b"not numpy")
    with pytest.raises(BadRequestError, match=r"vectors\.npy is no \.npy file"):
        build_index(documents(1), [FakeEncoder()], tmp_path / "index", vectors=path)


# --- compression ---


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"vectors": "fp16"}, 0.99),
        ({"vectors": "int8"}, 0.95),
        ({"dims": 12}, 0.5),
        ({"dims": 16, "vectors": "fp16"}, 0.99),
        ({"dims": 8, "reduction": "truncate"}, 0.1),
        ({"dims": 12, "vectors": "int8", "kind": "hnsw"}, 0.5),
    ],
)
def test_compression_tells_the_recall_that_it_costs_and_survives_updates(tmp_path: Path, options, least: float) -> None:  # noqa: ANN001
    vectors = unit_vectors(1500)
    units = [document(f"d{i}", f"text {i}") for i in range(1500)]
    manifest = build(tmp_path, units, given=vectors, **options)
    assert manifest.vectors.recall_at_10 is not None
    assert least <= manifest.vectors.recall_at_10 <= 1
    assert manifest.vectors.dims == options.get("dims", DIM)
    add(tmp_path, [document("new", "text of it")])
    index = Index.open(tmp_path, fingerprint="f1")
    queries = unit_vectors(50, seed=9)
    exact = np.argsort(-(vectors @ queries.T), axis=0)[:10].T
    hits = index.search([Query(embedding=query, num_passages=10) for query in queries])
    found = [{int(name[1:]) for name in index.documents_of(hit.passage_ids) if name != "new"} for hit in hits]
    assert np.mean([len(one & set(row.tolist())) / 10 for one, row in zip(found, exact, strict=True)]) >= least - 0.1
    assert verify(tmp_path) == []


def test_options_that_make_no_sense_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    for options, said in (
        ({"dims": 17}, "dims is 17 and the embedding model makes 16"),
        ({"dims": 0}, "dims is 0"),
        ({"recall_target": 1.5}, "recall is 1.5"),
        ({"language": "klingon"}, "klingon"),
        ({"segment_passages": 0}, "segment_passages is 0"),
    ):
        with pytest.raises(BadRequestError, match=said):
            build(tmp_path / "index", documents(1), **options)


def test_the_recall_that_was_reached_is_recorded_and_a_target_out_of_reach_is_told(tmp_path: Path) -> None:
    units = [document(f"p{i}", f"text number {i}") for i in range(3000)]
    options = BuildOptions(kind="ivf_flat", recall_target=1.0)
    summary = build_index(units, [FakeEncoder()], tmp_path, options=options)
    point = Index.open(tmp_path, fingerprint="f1").manifest.segments[0].point
    assert (point.queries, summary.recall_missed) == (256, point.recall_at_10)
    assert 0.9 < (summary.recall_missed or 0) < 1
    summary = build_index(units, [FakeEncoder()], tmp_path, options=BuildOptions(kind="ivf_flat", recall_target=0.9))
    assert summary.recall_missed is None
    assert (summary.manifest.recall_at_10 or 0) >= 0.9


def test_a_sentence_that_many_passages_share_is_asked_once_in_tuning(tmp_path: Path) -> None:
    units = [document(f"p{i}", f"text number {i % 100}") for i in range(1500)]
    summary = build_index(units, [FakeEncoder()], tmp_path, options=BuildOptions(kind="sq8"))
    assert summary.segments[0].point.queries == 50  # a half of those that differ
