"""A known answer is given to the same question about the same version, and to no other; memory stays within its bounds."""

import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.index.filters import parse_filter
from tritonrag_backends.index.result_cache import Asked, ResultCache, canonical
from tritonrag_backends.index.search import Hits, Query
from tritonrag_client.errors import BadRequestError

DIM = 16
PLENTY = 10_000_000


@dataclass
class Searches:
    """Stands in for an Index: every search of it has an answer of its own."""

    default_mode: str = "hybrid"
    manifest: Any = field(default_factory=object)
    batches: list[int] = field(default_factory=list)
    count: int = 0

    def mode_of(self, query: Query) -> str:
        return query.mode or self.default_mode

    def search(self, queries: Sequence[Query]) -> list[Hits]:
        self.batches.append(len(queries))
        return [self._hits(query.num_passages) for query in queries]

    def _hits(self, k: int) -> Hits:
        self.count += 1
        return Hits(passage_ids=np.arange(k) + 1000 * self.count, scores=np.zeros(k, np.float32))


def vector(seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=DIM)
    return (values / np.linalg.norm(values)).astype(np.float32)


def turned(embedding: np.ndarray, cosine: float, seed: int = 99) -> np.ndarray:
    """A unit vector with this cosine to the given one."""
    other = vector(seed)
    other -= np.dot(other, embedding) * embedding
    other /= np.linalg.norm(other)
    return (cosine * embedding + np.sqrt(1 - cosine**2) * other).astype(np.float32)


def asked(text: str = "q", embedding: np.ndarray | None = None, *, filter_text: str = "", **options: Any) -> Asked:
    embedding = vector() if embedding is None else embedding
    wanted = parse_filter(filter_text) if filter_text else None
    query = Query(embedding=embedding, text=text, filter=wanted, **{"num_passages": 3, **options})
    return Asked(query=query, filter_text=canonical(filter_text) if filter_text else "")


def ask(cache: ResultCache, index: Searches, *questions: Asked) -> list[list[int]]:
    return [hits.passage_ids.tolist() for hits in cache.search(index, questions).hits]


def test_the_same_question_is_searched_once() -> None:
    cache, index = ResultCache(PLENTY), Searches()
    first = cache.search(index, [asked()])
    again = cache.search(index, [asked()])
    assert (first.known, again.known) == ([False], [True])
    assert again.hits[0].passage_ids.tolist() == first.hits[0].passage_ids.tolist()
    assert index.batches == [1]


@pytest.mark.parametrize(
    "other",
    [
        asked("Q"),
        asked(mode="dense"),
        asked(mode="lexical"),
        asked(tenant="blue"),
        asked(num_passages=4),
        asked(filter_text='{"n":1}'),
        asked(embedding=vector(1)),
        asked(embedding=-vector()),
    ],
)
def test_another_question_is_searched(other: Asked) -> None:
    cache, index = ResultCache(PLENTY), Searches()
    assert ask(cache, index, asked()) != ask(cache, index, other)
    assert index.batches == [1, 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [('{"n":1}', '{"n":true}'), ('{"n":1}', '{"n":1.0}'), ('{"n":"1"}', '{"n":1}'), ('{"n":0}', '{"n":false}')],
)
def test_filters_that_python_takes_for_equal_are_not(one: str, other: str) -> None:
    cache, index = ResultCache(PLENTY), Searches()
    assert ask(cache, index, asked(filter_text=one)) != ask(cache, index, asked(filter_text=other))


def test_the_same_filter_written_otherwise_is_the_same() -> None:
    cache, index = ResultCache(PLENTY), Searches()
    one, other = '{"a": "\\u00e4", "b": [1]}', '{ "b":[1],"a":"\u00e4"}'
    assert canonical(one) == canonical(other)
    same = '{"lang":"en","n":{"in":[1,2]}}', '{"n": {"in": [1, 2]}, "lang": "en"}'
    assert ask(cache, index, asked(filter_text=same[0])) == ask(cache, index, asked(filter_text=same[1]))


def test_the_index_default_mode_is_a_mode_like_any() -> None:
    cache, index = ResultCache(PLENTY), Searches(default_mode="dense")
    assert ask(cache, index, asked()) == ask(cache, index, asked(mode="dense"))


@pytest.mark.parametrize(("cosine", "same"), [(1.0, True), (0.9996, True), (0.9985, False), (0.5, False)])
@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_the_vector_of_a_text_may_differ_by_the_encoders_rounding_alone(mode: str, cosine: float, same: bool) -> None:
    cache, index = ResultCache(PLENTY), Searches()
    other = asked(embedding=turned(vector(), cosine), mode=mode)
    assert (ask(cache, index, asked(mode=mode)) == ask(cache, index, other)) is same


def test_without_a_text_only_the_same_vector_is_the_same_question() -> None:
    cache, index = ResultCache(PLENTY), Searches(default_mode="dense")
    known = ask(cache, index, asked(""))
    assert ask(cache, index, asked("")) == known
    assert ask(cache, index, asked("", turned(vector(), 0.99999))) != known


def test_lexical_search_goes_by_the_text_whatever_the_vector() -> None:
    cache, index = ResultCache(PLENTY), Searches(default_mode="lexical")
    known = ask(cache, index, asked())
    without = Asked(query=replace(asked().query, embedding=None))
    assert ask(cache, index, asked(embedding=vector(5)), without) == known * 2
    assert index.batches == [1]


def test_the_newer_of_two_vectors_of_one_text_is_the_known_one() -> None:
    cache, index = ResultCache(PLENTY), Searches()
    ask(cache, index, asked())
    newer = ask(cache, index, asked(embedding=vector(1)))
    assert ask(cache, index, asked(embedding=vector(1))) == newer
    assert len(cache) == 1


def test_alike_questions_of_one_batch_are_searched_once() -> None:
    cache, index = ResultCache(PLENTY), Searches()
    ask(cache, index, asked("known"))
    batch = [asked("a"), asked("b"), asked("a"), asked("known"), asked("a", vector(3)), asked("b")]
    answered = cache.search(index, batch)
    ids = [tuple(hits.passage_ids) for hits in answered.hits]
    assert index.batches == [1, 3]
    assert answered.known == [False, False, True, True, False, True]
    assert ids[0] == ids[2]
    assert ids[1] == ids[5]
    assert len({ids[0], ids[1], ids[3], ids[4]}) == 4


def test_switched_off_it_keeps_nothing_between_batches() -> None:
    cache, index = ResultCache(0), Searches()
    one, same = ask(cache, index, asked(), asked())
    assert one == same
    assert [one] != ask(cache, index, asked())
    assert index.batches == [1, 1]
    assert (len(cache), cache.bytes) == (0, 0)


def test_another_version_empties_it_be_it_newer_or_older() -> None:
    cache, old, new = ResultCache(PLENTY), Searches(), Searches()
    first = ask(cache, old, asked("a"), asked("b"))
    ask(cache, new, asked("c"))
    assert len(cache) == 1
    assert ask(cache, old, asked("a"), asked("b")) != first


def test_a_search_that_fails_leaves_nothing_behind() -> None:
    class Failing(Searches):
        def search(self, queries: Sequence[Query]) -> list[Hits]:
            raise ValueError(len(queries))

    cache = ResultCache(PLENTY)
    with pytest.raises(ValueError, match="2"):
        cache.search(Failing(), [asked("a"), asked("b")])
    assert (len(cache), cache.bytes) == (0, 0)


def test_what_is_kept_is_no_view_of_the_batch() -> None:
    class Batched(Searches):
        def search(self, queries: Sequence[Query]) -> list[Hits]:
            ids, scores = np.zeros((len(queries), 3), np.int64), np.zeros((len(queries), 3), np.float32)
            return [Hits(passage_ids=ids[row], scores=scores[row]) for row in range(len(queries))]

    cache = ResultCache(PLENTY)
    batch = np.stack([vector(seed) for seed in range(8)])
    cache.search(Batched(), [asked(str(row), batch[row]) for row in range(8)])
    for entry in cache._entries.values():
        assert entry.embedding.base is entry.hits.passage_ids.base is entry.hits.scores.base is None


def test_the_least_recently_used_goes_first() -> None:
    cache, index = ResultCache(PLENTY), Searches()
    ask(cache, index, asked("a"))
    cache = ResultCache(3 * cache.bytes)
    for text in ("a", "b", "c", "a", "d"):
        ask(cache, index, asked(text))
    before = len(index.batches)
    ask(cache, index, asked("a"), asked("c"), asked("d"))
    assert len(index.batches) == before
    ask(cache, index, asked("b"))
    assert len(index.batches) == before + 1


@given(
    most_bytes=st.integers(0, 20_000),
    questions=st.lists(st.tuples(st.text(max_size=300), st.integers(1, 40)), max_size=60),
)
def test_it_never_holds_more_bytes_than_it_may(most_bytes: int, questions: list[tuple[str, int]]) -> None:
    cache, index = ResultCache(most_bytes), Searches()
    for text, k in questions:
        ask(cache, index, asked(text, num_passages=k))
        assert cache.bytes <= most_bytes
        assert cache.bytes == sum(entry.bytes for entry in cache._entries.values())
    cache.clear()
    assert cache.bytes == len(cache) == 0


def test_what_it_says_to_hold_is_what_it_holds() -> None:
    cache, index = ResultCache(PLENTY), Searches()
    ask(cache, index, asked())
    cache.clear()
    gc.collect()
    tracemalloc.start()
    for number in range(2000):
        ask(cache, index, asked(f"question number {number}", vector(number), num_passages=5))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(cache) == 2000
    assert 0.9 < cache.bytes / held < 1.25


def test_what_is_known_is_not_embedded_and_what_stands_in_a_batch_twice_is_embedded_once() -> None:
    cache, index = ResultCache(PLENTY), Searches()
    embedded: list[str] = []

    def embed(queries: Sequence[Query]) -> list[Query]:
        embedded.extend(query.text for query in queries)
        return [replace(query, embedding=vector()) for query in queries]

    def unembedded(text: str) -> Asked:
        return replace(asked(text), query=replace(asked(text).query, embedding=None))

    first = cache.search(index, [unembedded("a"), unembedded("b"), unembedded("a")], embed)
    again = cache.search(index, [unembedded("b"), unembedded("c")], embed)
    assert embedded == ["a", "b", "c"]
    assert (first.known, again.known) == ([False, False, True], [True, False])
    assert again.hits[0].passage_ids.tolist() == first.hits[1].passage_ids.tolist()


def test_a_question_without_an_embedding_is_not_answered_as_one_with_an_embedding() -> None:
    cache, index = ResultCache(PLENTY), Searches()
    bare = replace(asked(), query=replace(asked().query, embedding=None))
    for one in (asked(), bare, asked()):
        assert cache.search(index, [one]).known == [False]


def test_a_batch_whose_embedding_fails_leaves_nothing_behind() -> None:
    def embed(_: Sequence[Query]) -> list[Query]:
        raise BadRequestError("not Unicode")

    cache, index = ResultCache(PLENTY), Searches()
    with pytest.raises(BadRequestError):
        cache.search(index, [asked()], embed)
    assert (len(cache), index.batches) == (0, [])
