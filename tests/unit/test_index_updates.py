"""Promises of updates: after any additions, deletions, merges and rollbacks an index answers as one built from what is left."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_fakes import WORDS, FakeEncoder, add, build, document, documents

from tritonrag_backends.index import Index, Query, parse_filter
from tritonrag_backends.index.merging import SEGMENTS_OF_A_SIZE, merge
from tritonrag_backends.index.operations import collect_garbage, delete_documents, rollback, status, verify
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError
from tritonrag_export.documents.model import DocumentPassages

Corpus = dict[tuple[str | None, str], DocumentPassages]
TENANTS = (None, "acme", "zeta")
MODES = ("dense", "lexical", "hybrid")
QUESTIONS = ("apple bridge", "the garden of document 3", "jungle")


def answers(index: Index) -> list[tuple[object, ...]]:
    """What an index answers to a set of questions, told by documents and texts: ids are not the same in two indexes."""
    embeddings = FakeEncoder().encode(QUESTIONS).vectors
    queries = [
        Query(embedding=vector, text=text, num_passages=200, tenant=tenant, mode=mode, filter=condition)
        for text, vector in zip(QUESTIONS, embeddings, strict=True)
        for tenant in TENANTS
        for mode in MODES
        for condition in (None, parse_filter('{"not": {"year": {"gte": 2005}}}'))
    ]
    found = []
    for query, hits in zip(queries, index.search(queries), strict=True):
        texts = [Passage.from_json(data).text for data in index.passages(hits.passage_ids)]
        # Equal scores stand in the order of ids, which is another in another index.
        rows = sorted(
            zip(-hits.scores.astype(np.float64).round(5), index.documents_of(hits.passage_ids), texts, strict=True)
        )
        found.append((query.text, query.tenant, query.mode, rows if query.mode != "hybrid" else None))
    return found


def rebuilt(corpus: Corpus, folder: Path) -> Index:
    build(folder, list(corpus.values()))
    return Index.open(folder, fingerprint="f1")


def some_document(chance: random.Random) -> DocumentPassages:
    texts = [
        " ".join(chance.choices(WORDS, k=chance.randint(3, 9))) + f" {chance.random()}"
        for _ in range(chance.randint(1, 4))
    ]
    return document(f"d{chance.randrange(12)}", *texts, tenant=chance.choice(TENANTS), year=chance.randint(2000, 2010))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_sequence_of_changes_answers_as_an_index_built_from_what_is_left(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("updates")
    corpus: Corpus = {(unit.tenant, unit.id): unit for unit in (some_document(chance) for _ in range(8))}
    build(folder / "index", list(corpus.values()))
    for _ in range(6):
        what = chance.choice(("add", "add", "delete", "merge", "merge all"))
        if what == "add":
            new = {
                (unit.tenant, unit.id): unit for unit in (some_document(chance) for _ in range(chance.randint(1, 4)))
            }
            add(folder / "index", list(new.values()))
            corpus |= new
        elif what == "delete" and len(corpus) > 1:
            tenant, name = chance.choice(list(corpus))
            delete_documents(folder / "index", [name], tenant=tenant)
            del corpus[tenant, name]
        elif what.startswith("merge"):
            merge(folder / "index", everything=what == "merge all")
    index = Index.open(folder / "index", fingerprint="f1")
    assert sorted(index.document_keys, key=str) == sorted(corpus, key=str)
    assert index.passage_count == sum(len(unit.passages) for unit in corpus.values())
    assert index.manifest.counts.documents == len(corpus)
    assert answers(index) == answers(rebuilt(corpus, folder / "fresh"))
    assert verify(folder / "index", every_version=True) == []


def test_a_document_that_has_not_changed_is_left_and_makes_no_version(tmp_path: Path) -> None:
    first = build(tmp_path, documents(3))
    assert add(tmp_path, documents(3)) == first


def test_a_changed_document_replaces_its_old_passages_and_no_other(tmp_path: Path) -> None:
    build(tmp_path, documents(3))
    manifest = add(tmp_path, [*documents(2), document("d2.md", "all new")])
    assert (manifest.counts.documents, manifest.counts.passages) == (3, 7)
    assert [(one.rows, one.live_rows) for one in manifest.segments] == [(9, 6), (1, 1)]


def test_tenants_documents_of_the_same_name_are_different_documents(tmp_path: Path) -> None:
    build(tmp_path, [document("a", "everybody's"), document("a", "acme's", tenant="acme")])
    add(tmp_path, [document("a", "acme's new", tenant="acme")])
    delete_documents(tmp_path, ["a"])
    assert Index.open(tmp_path, fingerprint="f1").document_keys == [("acme", "a")]


def test_deleting_what_is_not_there_deletes_nothing_and_names_it(tmp_path: Path) -> None:
    build(tmp_path, documents(3))
    with pytest.raises(NotFoundError, match=r"no document 'nope'.*nothing was deleted"):
        delete_documents(tmp_path, ["d0.md", "nope"])
    with pytest.raises(NotFoundError, match=r"tenant 'acme' has no document 'd0\.md'"):
        delete_documents(tmp_path, ["d0.md"], tenant="acme")
    assert status(tmp_path).manifest.counts.documents == 3
    deleted = delete_documents(tmp_path, ["d0.md", "nope"], missing_ok=True)
    assert (deleted.documents, deleted.passages, deleted.missing) == (1, 3, ("nope",))


def test_an_index_of_which_everything_is_deleted_is_empty_and_can_be_added_to(tmp_path: Path) -> None:
    build(tmp_path, documents(1))
    assert delete_documents(tmp_path, ["d0.md"]).manifest.segments == ()
    empty = Index.open(tmp_path, fingerprint="f1")
    embedding = FakeEncoder().encode(["x"]).vectors[0]
    for mode in MODES:
        (hits,) = empty.search([Query(embedding=embedding, text="apple", num_passages=5, mode=mode)])
        assert len(hits.passage_ids) == 0
    assert add(tmp_path, documents(2)).counts.documents == 2


def test_many_small_segments_are_merged_by_policy_and_a_large_one_is_left(tmp_path: Path) -> None:
    build(tmp_path, documents(700, 2))
    for i in range(SEGMENTS_OF_A_SIZE - 1):
        add(tmp_path, [document(f"new{i}", "text")])
        assert merge(tmp_path) is None
    add(tmp_path, [document("last", "text")])
    merged = merge(tmp_path)
    assert merged is not None
    assert [one.rows for one in merged.segments] == [1400, SEGMENTS_OF_A_SIZE]
    assert merge(tmp_path) is None


def test_a_segment_of_which_much_is_deleted_is_rewritten(tmp_path: Path) -> None:
    build(tmp_path, documents(1000, 1))
    delete_documents(tmp_path, [f"d{i}.md" for i in range(250)])
    assert merge(tmp_path) is None
    delete_documents(tmp_path, ["d999.md"])
    merged = merge(tmp_path)
    assert merged is not None
    assert [(one.rows, one.tombstones) for one in merged.segments] == [(749, None)]


def test_what_is_deleted_while_segments_are_merged_stays_deleted(tmp_path: Path) -> None:
    build(tmp_path, documents(4, 1))
    add(tmp_path, [document("e", "text e"), document("f", "text f")])

    def meddle(what: str, _rows: int) -> None:
        if what == "checking the files":
            delete_documents(tmp_path, ["d1.md", "f"])
            add(tmp_path, [document("d0.md", "replaced"), document("g", "new meanwhile")])

    merged = merge(tmp_path, everything=True, step=meddle)
    assert merged is not None
    index = Index.open(tmp_path, fingerprint="f1")
    assert sorted(name for _, name in index.document_keys) == ["d0.md", "d2.md", "d3.md", "e", "g"]
    assert verify(tmp_path) == []


def test_a_merge_whose_segments_were_replaced_meanwhile_is_thrown_away(tmp_path: Path) -> None:
    build(tmp_path, documents(4, 1))
    add(tmp_path, [document("e", "text e")])

    def meddle(what: str, _rows: int) -> None:
        if what == "checking the files":
            build(tmp_path, documents(2, 1))

    assert merge(tmp_path, everything=True, step=meddle) is None
    assert status(tmp_path).manifest.counts.documents == 2
    assert status(tmp_path).unfinished_bytes == 0


def test_going_back_and_forth_between_versions(tmp_path: Path) -> None:
    build(tmp_path, documents(2))
    add(tmp_path, [document("e", "text")])
    delete_documents(tmp_path, ["d0.md"])
    assert rollback(tmp_path) == (3, 2)
    assert Index.open(tmp_path, fingerprint="f1").passage_count == 7
    assert rollback(tmp_path, 3) == (2, 3)
    assert rollback(tmp_path, 1) == (3, 1)
    with pytest.raises(NotFoundError, match="no version before 1"):
        rollback(tmp_path)
    with pytest.raises(NotFoundError, match=r"no version 9 .*\[1, 2, 3\]"):
        rollback(tmp_path, 9)
    assert add(tmp_path, [document("f", "text")]).index_version == 4
    assert [one.number for one in status(tmp_path).manifest.segments] == [1, 3]


def test_old_versions_are_removed_with_what_only_they_need(tmp_path: Path) -> None:
    build(tmp_path, documents(2))
    build(tmp_path, documents(3))
    add(tmp_path, [document("e", "text")])
    before = Index.open(tmp_path, fingerprint="f1")
    collected = collect_garbage(tmp_path, keep=1)
    assert (collected.kept, collected.removed) == ((3,), (1, 2))
    assert collected.freed_bytes > 0
    assert status(tmp_path).other_bytes == 0
    assert answers(before) == answers(Index.open(tmp_path, fingerprint="f1"))
    with pytest.raises(BadRequestError, match="keep is 0"):
        collect_garbage(tmp_path, keep=0)


def test_a_build_and_a_clean_up_get_over_a_version_that_cannot_be_read(tmp_path: Path) -> None:
    """Damaged, or left by an older tritonrag: what the error advises must work."""
    build(tmp_path, documents(2))
    (manifest,) = (tmp_path / "manifests").iterdir()
    manifest.write_bytes(b"{}")
    with pytest.raises(InternalError, match="index build"):
        Index.open(tmp_path, fingerprint="f1")
    rebuilt = build(tmp_path, documents(3))
    assert (rebuilt.index_version, [one.number for one in rebuilt.segments]) == (2, [2])
    assert collect_garbage(tmp_path, keep=1).removed == (1,)
    assert sorted(path.name for path in (tmp_path / "segments").iterdir()) == ["000002"]
    assert verify(tmp_path, every_version=True) == []


def test_neither_version_nor_segment_numbers_come_back_after_old_versions_are_gone(tmp_path: Path) -> None:
    build(tmp_path, documents(2))
    add(tmp_path, [document("e", "text")])
    rollback(tmp_path)
    delete_documents(tmp_path, ["d0.md"])
    collect_garbage(tmp_path, keep=1)
    manifest = add(tmp_path, [document("e", "text")])
    assert (manifest.index_version, [one.number for one in manifest.segments]) == (4, [1, 3])


def test_a_reader_goes_on_with_a_version_that_was_removed(tmp_path: Path) -> None:
    build(tmp_path, documents(2))
    before = Index.open(tmp_path, fingerprint="f1")
    expected = answers(before)
    build(tmp_path, documents(3))
    collect_garbage(tmp_path, keep=1)
    assert answers(before) == expected
