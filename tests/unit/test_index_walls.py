"""Promises of filters and tenants: nobody sees what they must not, and the best of what they may is found exactly."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_fakes import DIM, FakeEncoder, add, build, document, passage, unit_vectors

from tritonrag_backends.index import Index, Query, parse_filter
from tritonrag_backends.index.filter_rows import matches
from tritonrag_backends.index.filters import Filter
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, InternalError
from tritonrag_export.documents.model import DocumentPassages

KINDS = ["flat", "sq8", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"]
TENANTS = (None, "acme", "zeta")
LANGUAGES = ("en", "de", "fr")
ROWS = 2_000


def some_metadata(chance: random.Random) -> dict[str, Any]:
    every = {
        "lang": chance.choice(LANGUAGES),
        "year": chance.choice([chance.randint(1990, 2026), chance.random() * 100, 2**53 + chance.randint(0, 2)]),
        "tags": chance.sample(("a", "b", "c", "ä", 1, 1.5, True), chance.randint(0, 3)),
        "open": chance.random() < 0.5,
        "rare": "yes" if chance.random() < 0.01 else "no",
    }
    return {name: value for name, value in every.items() if chance.random() < 0.8}


def some_condition(chance: random.Random) -> dict[str, Any]:
    field = chance.choice(("lang", "year", "tags", "open", "rare"))
    value = chance.choice((*LANGUAGES, "a", "ä", "yes", 1, 1.5, True, False, 2000, 2**53 + 1, 50.5))
    number = chance.choice((2000, 50.5, 2**53 + 1, 1, -(2**63)))
    return {
        field: chance.choice(
            (
                value,
                {"in": [value, chance.choice(LANGUAGES)]},
                {"exists": chance.random() < 0.5},
                {chance.choice(("gt", "gte", "lt", "lte")): number},
                {"gte": number, "lt": number + 10},
                {"gt": "b"},
            )
        )
    }


def some_filter(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    if depth == 3 or chance.random() < 0.4:
        return some_condition(chance)
    inner = [some_filter(chance, depth + 1) for _ in range(chance.randint(1, 3))]
    return chance.choice(({"and": inner}, {"or": inner}, {"not": inner[0]}))


class Oracle:
    """Plain Python over what went in."""

    def __init__(self, units: list[DocumentPassages], vectors: np.ndarray) -> None:
        self.units, self.vectors = units, vectors

    def best(self, query: np.ndarray, k: int, tenant: str | None, condition: Filter | None) -> list[str]:
        allowed = [
            row
            for row, unit in enumerate(self.units)
            if unit.tenant in {None, tenant} and (condition is None or matches(condition, unit.passages[0].metadata))
        ]
        scores = self.vectors[allowed] @ query
        order = np.lexsort((allowed, -scores))[:k]
        return [self.units[allowed[i]].id for i in order]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    chance = random.Random(3)
    units = [
        document(f"d{i}", f"text {i}", tenant=chance.choice((*TENANTS, None)), **some_metadata(chance))
        for i in range(ROWS)
    ]
    return Oracle(units, unit_vectors(ROWS, seed=1))


def indexed(oracle: Oracle, folder: Path, **options: Any) -> Index:
    build(folder, oracle.units[:1500], given=oracle.vectors[:1500], **options)
    add(folder, oracle.units[1500:], given=oracle.vectors[1500:])
    return Index.open(folder, fingerprint="f1")


def test_3000_random_filters_give_the_exact_best_of_what_each_asker_may_see(oracle: Oracle, tmp_path: Path) -> None:
    index = indexed(oracle, tmp_path)
    chance = random.Random(11)
    vectors = unit_vectors(50, seed=77)
    left = []
    for _ in range(100):
        asked = [
            (
                vectors[chance.randrange(50)],
                chance.randint(1, 12),
                chance.choice((*TENANTS, "nobody")),
                some_filter(chance),
            )
            for _ in range(30)
        ]
        parsed = [parse_filter(json.dumps(condition)) for *_, condition in asked]
        queries = [
            Query(embedding=vector, num_passages=k, tenant=tenant, filter=condition)
            for (vector, k, tenant, _), condition in zip(asked, parsed, strict=True)
        ]
        for (vector, k, tenant, _), condition, hits in zip(asked, parsed, index.search(queries), strict=True):
            expected = oracle.best(vector, k, tenant, condition)
            assert index.documents_of(hits.passage_ids) == expected, (tenant, condition)
            left.append(len(expected))
    assert min(left) == 0  # some filters leave nothing, some all that was asked for
    assert max(left) == 12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leaves", [0, 1, 2, 20, 1000, 1900])
def test_every_kind_finds_the_exact_best_of_the_few_that_a_filter_leaves(
    oracle: Oracle, tmp_path: Path, kind: str, leaves: int
) -> None:
    units = [document(f"d{i}", f"text {i}", kept=i < leaves, n=i) for i in range(ROWS)]
    build(tmp_path, units, given=oracle.vectors, kind=kind)
    index = Index.open(tmp_path, fingerprint="f1")
    condition = parse_filter('{"kept": true}')
    found = right = 0
    for vector in unit_vectors(20, seed=5):
        (hits,) = index.search([Query(embedding=vector, num_passages=10, filter=condition)])
        names = index.documents_of(hits.passage_ids)
        assert len(names) == min(10, leaves)
        assert all(int(name[1:]) < leaves for name in names)
        best = [f"d{i}" for i in np.argsort(-(oracle.vectors[:leaves] @ vector), kind="stable")[:10]]
        if leaves < 1000:
            assert names == best
        found += len(names)
        right += len(set(names) & set(best))
    assert right >= 0.9 * found


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_an_askers_answers_are_those_of_an_index_that_holds_only_what_it_may_see(tmp_path: Path, mode: str) -> None:
    chance = random.Random(5)
    words = ("apple", "bridge", "cloud", "desert", "engine")
    units = [
        document(f"d{i}", " ".join(chance.choices(words, k=6)) + f" {i}", tenant=chance.choice(TENANTS))
        for i in range(300)
    ]
    build(tmp_path / "all", units)
    every = Index.open(tmp_path / "all", fingerprint="f1")
    vector = FakeEncoder().encode(["apple"]).vectors[0]
    for tenant in TENANTS:
        build(tmp_path / f"of-{tenant}", [unit for unit in units if unit.tenant in {None, tenant}])
        own = Index.open(tmp_path / f"of-{tenant}", fingerprint="f1")
        queries = [
            Query(embedding=vector, text=f"{word} cloud", num_passages=9, tenant=tenant, mode=mode)  # type: ignore[arg-type]
            for word in words
        ]
        for theirs, expected in zip(every.search(queries), own.search(queries), strict=True):
            assert every.documents_of(theirs.passage_ids) == own.documents_of(expected.passage_ids)
            assert theirs.scores.tobytes() == expected.scores.tobytes()


def test_mixed_batches_answer_each_query_as_it_is_answered_alone(oracle: Oracle, tmp_path: Path) -> None:
    index = indexed(oracle, tmp_path)
    chance = random.Random(2)
    vectors = unit_vectors(8, seed=8)
    queries = [
        Query(
            embedding=vectors[chance.randrange(8)],
            text=chance.choice(("text 7", "text", "nothing of this")),
            num_passages=chance.choice((1, 5, 60)),
            tenant=chance.choice(TENANTS),
            mode=chance.choice(("dense", "lexical", "hybrid", None)),
            filter=chance.choice((None, parse_filter('{"lang": "en"}'), parse_filter('{"year": {"gte": 2000}}'))),
        )
        for _ in range(64)
    ]
    for query, together in zip(queries, index.search(queries), strict=True):
        (alone,) = index.search([query])
        assert together.passage_ids.tolist() == alone.passage_ids.tolist()
        assert together.scores.tobytes() == alone.scores.tobytes()


def test_true_and_1_are_different_filters_even_one_after_the_other(tmp_path: Path) -> None:
    build(tmp_path, [document("yes", "a", x=True), document("one", "b", x=1), document("float", "c", x=1.0)])
    index = Index.open(tmp_path, fingerprint="f1")
    vector = FakeEncoder().encode(["x"]).vectors[0]
    for text, names in (('{"x": true}', {"yes"}), ('{"x": 1}', {"one", "float"}), ('{"x": true}', {"yes"})):
        (hits,) = index.search([Query(embedding=vector, num_passages=5, filter=parse_filter(text))])
        assert set(index.documents_of(hits.passage_ids)) == names


def test_what_faiss_should_not_have_returned_is_never_given_out(
    oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FAISS that ignores selectors, as those for GPUs do: the allowed rows are then searched exactly."""
    index = indexed(oracle, tmp_path, kind="hnsw")
    find = type(index.segments[0].files.ann).find

    def ignoring(self: Any, queries: Any, *, candidates: int, effort: int, allowed: Any) -> Any:
        del allowed
        return find(self, queries, candidates=candidates, effort=effort, allowed=None)

    monkeypatch.setattr(type(index.segments[0].files.ann), "find", ignoring)
    monkeypatch.setattr("tritonrag_backends.index.segment.exact_is_cheaper", lambda *_: False)
    condition = parse_filter('{"lang": "en"}')
    for vector in unit_vectors(10, seed=6):
        (hits,) = index.search([Query(embedding=vector, num_passages=10, tenant="acme", filter=condition)])
        assert index.documents_of(hits.passage_ids) == oracle.best(vector, 10, "acme", condition)


def test_a_passage_whose_metadata_does_not_pass_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postings and passages that disagree: nothing is returned rather than something that may not be seen."""
    build(tmp_path, [document(f"d{i}", f"text {i}", lang="en") for i in range(5)])
    index = Index.open(tmp_path, fingerprint="f1")
    wrong = passage("text", lang="de").to_json()
    monkeypatch.setattr("tritonrag_backends.index.segment.Segment.passage", lambda *_: wrong)
    vector = FakeEncoder().encode(["x"]).vectors[0]
    with pytest.raises(InternalError, match="must not see"):
        index.search([Query(embedding=vector, num_passages=2, filter=parse_filter('{"lang": "en"}'))])
    assert Passage.from_json(wrong).metadata == {"lang": "de"}


def test_only_declared_fields_can_be_filtered_by_and_their_values_must_be_filterable(tmp_path: Path) -> None:
    units = [document("a", "text", lang="en", hidden="x")]
    build(tmp_path, units, fields=("lang",))
    index = Index.open(tmp_path, fingerprint="f1")
    vector = unit_vectors(1, DIM)[0]
    with pytest.raises(BadRequestError, match='no field "hidden"'):
        index.check(Query(embedding=vector, num_passages=1, filter=parse_filter('{"hidden": "x"}')))
    with pytest.raises(BadRequestError, match=r"lang.*can't be filtered by"):
        build(tmp_path, [document("a", "text", lang={"code": "en"})], fields=("lang",))
    assert Index.open(tmp_path, fingerprint="f1").version == 1


def test_a_field_with_values_that_cannot_be_filtered_by_is_refused_not_ignored(tmp_path: Path) -> None:
    build(tmp_path, [document("a", "text", lang="en"), document("b", "other", lang={"code": "en"})])
    index = Index.open(tmp_path, fingerprint="f1")
    with pytest.raises(BadRequestError, match='values of "lang" that can\'t be filtered by'):
        index.check(Query(embedding=unit_vectors(1, DIM)[0], num_passages=1, filter=parse_filter('{"lang": "en"}')))
