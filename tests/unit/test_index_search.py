"""Promises of search: the exact best, in one order, whatever the batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from index_fakes import DIM, document, unit_vectors, write_index

from tritonrag_backends.index import Index, Query, parse_filter
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, NotFoundError

ROWS = 700
KINDS = ["flat", "sq8", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit_vectors(ROWS)


@pytest.fixture(scope="module")
def index(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Index:
    directory = tmp_path_factory.mktemp("flat")
    write_index(directory, vectors)
    return Index.open(directory, fingerprint="f1")


def ask(vector: np.ndarray, num_passages: int = 10, **options: object) -> Query:
    return Query(embedding=vector, num_passages=num_passages, **options)  # type: ignore[arg-type]


def oracle(vectors: np.ndarray, query: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    order = np.lexsort((np.arange(len(scores)), -scores))[:k]
    return order.tolist(), scores[order]


@pytest.mark.parametrize("segments", [1, 3])
def test_flat_search_equals_brute_force(tmp_path: Path, vectors: np.ndarray, segments: int) -> None:
    manifest = write_index(tmp_path, vectors, segments=segments)
    index = Index.open(tmp_path, fingerprint="f1")
    first_row = np.cumsum([0] + [segment.rows for segment in manifest.segments])
    queries = unit_vectors(40, seed=5)
    for query, hits in zip(queries, index.search([ask(query) for query in queries]), strict=True):
        rows, scores = oracle(vectors, query, 10)
        found = [int(first_row[(i >> 32) - 1] + (i & 0xFFFFFFFF)) for i in hits.passage_ids.tolist()]
        assert found == rows
        np.testing.assert_allclose(hits.scores, scores, atol=1e-6)
        assert index.documents_of(hits.passage_ids) == [f"doc{row}.md" for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_nearly_all_and_scores_them_exactly(tmp_path: Path, kind: str) -> None:
    vectors = unit_vectors(3_000, dim=32)
    manifest = write_index(tmp_path, vectors, kind=kind)
    assert manifest.segments[0].kind == kind
    assert manifest.recall_at_10 is not None
    assert manifest.recall_at_10 >= 0.95
    index = Index.open(tmp_path, fingerprint="f1")
    queries = unit_vectors(100, dim=32, seed=5)
    recalled = 0
    for query, hits in zip(queries, index.search([ask(query) for query in queries]), strict=True):
        found = (hits.passage_ids & 0xFFFFFFFF).tolist()
        np.testing.assert_allclose(hits.scores, vectors[found] @ query, atol=1e-6)
        recalled += len(set(found) & set(oracle(vectors, query, 10)[0]))
    assert recalled >= 0.95 * 1_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_has_the_same_answer_to_the_bit_alone_and_in_any_batch(
    tmp_path: Path, vectors: np.ndarray, kind: str
) -> None:
    write_index(tmp_path, vectors, kind=kind)
    index = Index.open(tmp_path, fingerprint="f1")
    queries = [ask(query) for query in unit_vectors(33, seed=9)]
    alone = [index.search([query])[0] for query in queries]
    for size in (2, 8, 33):
        for query_alone, hits in zip(alone[:size], index.search(queries[:size]), strict=True):
            assert hits.passage_ids.tolist() == query_alone.passage_ids.tolist()
            assert hits.scores.tobytes() == query_alone.scores.tobytes()


def test_each_query_of_a_batch_gets_as_many_as_it_asked_for(index: Index, vectors: np.ndarray) -> None:
    asked = [1, 7, 3, ROWS, ROWS + 5, 10**9]
    hits = index.search([ask(vectors[i], count) for i, count in enumerate(asked)])
    assert [len(hit.passage_ids) for hit in hits] == [1, 7, 3, ROWS, ROWS, ROWS]
    for i, hit in enumerate(hits):
        assert hit.passage_ids[0] == (1 << 32) | i
        assert (hit.passage_ids.dtype, hit.scores.dtype) == (np.int64, np.float32)
        assert bool(np.all(np.diff(hit.scores) <= 0))


def test_equal_scores_stand_in_the_order_of_ids_however_many_there_are(tmp_path: Path, vectors: np.ndarray) -> None:
    same = np.repeat(vectors[:2], 60, axis=0)
    np.random.default_rng(1).shuffle(same)
    write_index(tmp_path, same)
    rows = np.flatnonzero((same == vectors[0]).all(axis=1))[:5]
    (hits,) = Index.open(tmp_path, fingerprint="f1").search([ask(vectors[0], 5)])
    assert (hits.passage_ids & 0xFFFFFFFF).tolist() == rows.tolist()


def test_a_query_that_names_no_mode_is_searched_by_what_it_has(tmp_path: Path, vectors: np.ndarray) -> None:
    write_index(tmp_path, vectors, mode="hybrid")
    index = Index.open(tmp_path, fingerprint="f1")
    text, vector = "Straße 7", vectors[3]
    for bare, named in (
        (Query(embedding=vector, num_passages=3), "dense"),
        (Query(embedding=None, text=text, num_passages=3), "lexical"),
        (Query(embedding=vector, text=text, num_passages=3), "hybrid"),
    ):
        assert index.mode_of(bare) == named
        plain, told = index.search([bare, replace(bare, mode=named)])
        assert plain.passage_ids.tolist() == told.passage_ids.tolist()
    for query, said in (
        (Query(embedding=None, num_passages=3), "mode lexical looks for its words"),
        (Query(embedding=vector, num_passages=3, mode="hybrid"), "mode hybrid looks for its words"),
        (Query(embedding=None, text=text, num_passages=3, mode="dense"), "embedding is missing"),
        (Query(embedding=vector, text=text, num_passages=3, mode="sparse"), "mode is 'sparse'; use one of hybrid"),  # type: ignore[arg-type]
    ):
        with pytest.raises(BadRequestError, match=said):
            index.check(query)


def test_no_queries_give_no_hits(index: Index) -> None:
    assert index.search([]) == []


def test_a_passage_comes_back_as_it_went_in(index: Index) -> None:
    (data,) = index.passages([(1 << 32) | 3])
    assert Passage.from_json(data) == document("doc3.md", "Straße 3\n").passages[0]


@pytest.mark.parametrize("passage_id", [-1, 3, (1 << 32) | ROWS, 2 << 32, 2**63 - 1])
def test_an_id_that_is_not_in_this_version_is_not_found(index: Index, passage_id: int) -> None:
    with pytest.raises(NotFoundError, match=str(passage_id)):
        index.passages([passage_id])


@pytest.mark.parametrize(
    ("embedding", "said"),
    [
        (np.zeros(DIM, np.float32), "length 0"),
        (np.full(DIM, np.nan, np.float32), "NaN"),
        (np.full(DIM, np.inf, np.float32), "NaN or infinity"),
        (unit_vectors(1, DIM + 1)[0], rf"\[{DIM}\]"),
        (unit_vectors(1), rf"\[{DIM}\]"),
        (unit_vectors(1)[0].astype(np.float64), "float64"),
        (unit_vectors(1)[0] * 1.5, "length 1.5"),
    ],
)
def test_an_embedding_that_is_not_a_unit_vector_of_the_right_size_is_refused(index: Index, embedding, said) -> None:  # noqa: ANN001
    with pytest.raises(BadRequestError, match=said):
        index.search([ask(embedding)])


@pytest.mark.parametrize("count", [0, -1])
def test_asking_for_no_passage_is_refused(index: Index, vectors: np.ndarray, count: int) -> None:
    with pytest.raises(BadRequestError, match=f"num_passages is {count}"):
        index.search([ask(vectors[0], count)])


def test_a_filter_on_a_field_that_the_index_does_not_declare_is_refused(index: Index, vectors: np.ndarray) -> None:
    with pytest.raises(BadRequestError, match='has no field "lang" to filter by'):
        index.search([ask(vectors[0], filter=parse_filter('{"not": {"lang": "en"}}'))])


def test_an_index_of_another_embedding_model_is_refused_and_both_are_named(tmp_path: Path, vectors: np.ndarray) -> None:
    write_index(tmp_path, vectors)
    with pytest.raises(BadRequestError, match=r"fake \(fingerprint f1\).*other-model \(fingerprint f2\).*index build"):
        Index.open(tmp_path, fingerprint="f2", embedder_name="other-model")
    assert Index.open(tmp_path, fingerprint=None).embedding_name == "fake"


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_of_one_passage_answers(tmp_path: Path, vectors: np.ndarray, kind: str) -> None:
    write_index(tmp_path, vectors[:1], kind=kind)
    (hits,) = Index.open(tmp_path, fingerprint="f1").search([ask(vectors[5])])
    assert hits.passage_ids.tolist() == [1 << 32]
