"""The index that changes under load: documents that can be told apart, a tally that forgets nothing, a page that tells all."""

import argparse
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tritonrag_backends.index import Index
from tritonrag_backends.index.format import EmbeddingRecord
from tritonrag_backends.index.operations import verify
from tritonrag_backends.index.store import read_current
from tritonrag_perf.index_swap import SwapResult, page_lines
from tritonrag_perf.process_use import ProcessUse, use_of
from tritonrag_perf.swap_changes import ChangingIndex
from tritonrag_perf.swap_corpus import make_document, make_requests
from tritonrag_perf.swap_load import Tally
from tritonrag_perf.swap_oracle import Oracle, digest, right_tensors

DIM = 16
RECORD = EmbeddingRecord(name="made", fingerprint="f" * 64, dim=DIM, precision="fp32", template="{text}")


@pytest.fixture
def changing(tmp_path: Path) -> ChangingIndex:
    index = ChangingIndex(tmp_path / "index", embedder=RECORD, documents=60)
    index.build()
    return index


def test_a_document_is_the_same_each_time_and_another_with_each_revision() -> None:
    one, same, other = (make_document(3, revision=revision, dim=DIM) for revision in (1, 1, 2))
    assert one.passages == same.passages
    assert np.array_equal(one.vectors, same.vectors)
    assert (one.id, one.tenant) == (other.id, other.tenant)
    assert one.passages != other.passages
    assert np.allclose(np.linalg.norm(one.vectors, axis=1), 1, atol=1e-6)


def test_the_requests_are_of_every_mode_with_and_without_tenant_and_filter(changing: ChangingIndex) -> None:
    index = Index.open(changing.directory, fingerprint=RECORD.fingerprint)
    rows = [row for request in make_requests(48, dim=DIM) for row in request]
    assert {row.mode for row in rows} == {"dense", "lexical", "hybrid"}
    assert {bool(row.tenant) for row in rows} == {bool(row.filter) for row in rows} == {True, False}
    for row in rows:
        index.check(row.query)


def test_every_change_leaves_an_index_that_is_whole_and_the_same_seed_the_same_changes(
    changing: ChangingIndex, tmp_path: Path
) -> None:
    twin = ChangingIndex(tmp_path / "twin", embedder=RECORD, documents=60)
    twin.build()
    kinds = set()
    for _ in range(25):
        done, same = changing.change(), twin.change()
        assert (done.kind, done.live.index_version) == (same.kind, same.live.index_version)
        kinds.add(done.kind)
    assert verify(changing.directory, every_version=True) == []
    assert len(kinds) > 3


def test_the_oracle_tells_one_version_from_the_next(changing: ChangingIndex) -> None:
    requests = make_requests(16, dim=DIM)
    oracle, old = Oracle(changing.directory, requests), read_current(changing.directory)
    oracle.learn(old)
    changing.add()
    new = read_current(changing.directory)
    assert not oracle.knows(new.index_version)
    oracle.learn(new)
    answers = [digest(*right_tensors(Index.of(changing.directory, new), rows)) for rows in requests]
    assert all(oracle.is_right(new.index_version, number, answer) for number, answer in enumerate(answers))
    assert not all(oracle.is_right(old.index_version, number, answer) for number, answer in enumerate(answers))


def test_a_digest_knows_order_padding_and_where_a_passage_ends() -> None:
    ids, scores = np.array([[1, 2]]), np.array([[0.5, 0.25]], np.float32)
    different = [
        digest(ids, scores, [b"ab", b"c"]),
        digest(ids, scores, [b"a", b"bc"]),
        digest(ids[:, ::-1], scores, [b"ab", b"c"]),
        digest(ids, scores[:, ::-1], [b"ab", b"c"]),
        digest(ids, scores, [b"ab", b"c", b""]),
    ]
    assert len(set(different)) == len(different)


def tally(answers: int, **what: int) -> Tally:
    one = Tally(answers=answers, versions=Counter({1: answers}), **what)
    one.latencies_ms.extend(range(answers))
    return one


def test_tallies_add_up_and_name_only_the_first_few() -> None:
    total = Tally()
    for number in range(9):
        one = tally(10, failures=1, wrong=2)
        one.name(f"failure {number}")
        total.add(one)
    assert (total.answers, total.failures, total.wrong, total.versions[1]) == (90, 9, 18, 90)
    assert total.named == [f"failure {number}" for number in range(5)]
    assert total.percentile_ms(100) == 9


def test_the_page_tells_what_was_done_and_what_went_wrong() -> None:
    quiet, loaded = tally(100), tally(1000, wrong=1)
    loaded.name("request 3: the answer is not that of version 7")
    result = SwapResult(
        changes=Counter({"add": 3, "rollback": 2}), versions=4, tally=loaded, take_up_ms=[10.0, 30.0], elapsed_s=2.0
    )
    use = ProcessUse(private_bytes=2**20, open_files=3, mappings=4)
    options = argparse.Namespace(cycles=5, clients=2, poll_s=0.5, seed=0)
    text = "\n".join(page_lines(options, quiet, result, [use, use]))
    assert "5 in 2 s: 0 build, 3 add, 0 delete, 2 rollback" in text
    assert "| answers that are not those of their version | 1 |" in text
    assert "- request 3: the answer is not that of version 7" in text
    assert "1 MiB, 3 open files, 4 mappings" in text


def test_what_a_process_holds_is_told(tmp_path: Path) -> None:
    before = use_of(os.getpid())
    with (tmp_path / "file").open("w"):
        assert use_of(os.getpid()).open_files == before.open_files + 1
    assert before.private_bytes > 2**20
    assert before.mappings > 10
