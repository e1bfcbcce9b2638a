"""Answers kept in the process: a question that was asked before, or twice in one batch, is not searched again."""

import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.format import Manifest
from tritonrag_backends.index.search import Hits, Query
from tritonrag_client.contract import Mode

# An int8 encoder rounds a text's vector a little differently in other company: by cosine up to 4e-4 from when it is alone
# (docs/benchmarks/embedder.md). Vectors of one text are taken for the same up to a squared distance of twice 1e-3, which for
# unit vectors is the cosine 1 - 1e-3.
_SAME_SQUARED_DISTANCE: Final = 2e-3
# What an entry takes besides its key's texts and the values of its arrays (measured with tracemalloc: 550).
_ENTRY_BYTES: Final = 600

Key = tuple[Mode, str | None, str, int, str]
Embed = Callable[[Sequence[Query]], Sequence[Query]]  # the same queries, with the embeddings that they need


class Searched(Protocol):
    """What is needed of an Index."""

    @property
    def manifest(self) -> Manifest: ...  # noqa: D102 - as in Index
    def mode_of(self, query: Query) -> Mode: ...  # noqa: D102
    def search(self, queries: Sequence[Query]) -> list[Hits]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """A query, and its filter's text in canonical form, "" without one: as values, 1 and true would be one filter."""

    query: Query
    filter_text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """The hits of each query, in order, and whether they were known or came of another row's search."""

    hits: list[Hits]
    known: list[bool]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Entry:
    embedding: npt.NDArray[np.float32] | None
    hits: Hits
    bytes: int


class ResultCache:
    """The answers of one index version, least recently used ones going first; another version empties it. For one thread.

    A known answer is given only to the same question: mode, tenant, filter, number of passages and text, and where vectors are
    searched the same embedding, to within what an encoder's rounding explains; without a text, to the bit. Where embeddings are
    still to come, from one and the same encoder, the text stands for its embedding.
    """

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes` 0: nothing is kept, but a question that stands in a batch twice is still searched once."""
        self._most_bytes = most_bytes
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._manifest: Manifest | None = None
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def search(self, index: Searched, asked: Sequence[Asked], embed: Embed = tuple) -> Answered:
        """The hits for each query, from memory or else from one search of `index` for all that are left.

        `embed` gets these first, where they come without embeddings: what is known already is never embedded. Raises what
        `embed` and `index.search` raise, and then keeps nothing of the batch.
        """
        if index.manifest is not self._manifest:
            self.clear()
            self._manifest = index.manifest
        keys = [_key(one, index.mode_of(one.query)) for one in asked]
        known = [self._known(key, one.query.embedding) for key, one in zip(keys, asked, strict=True)]
        leaders = _leaders(keys, asked, known)
        rows = [row for row, leader in enumerate(leaders) if row == leader]
        queries = embed([asked[row].query for row in rows]) if rows else ()
        found = dict(zip(rows, index.search(queries) if rows else (), strict=True))
        for row, new in found.items():
            self._keep(keys[row], asked[row].query.embedding, new)
        hits = [_require(known[row] if leader is None else found[leader]) for row, leader in enumerate(leaders)]
        return Answered(hits=hits, known=[row != leader for row, leader in enumerate(leaders)])

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._manifest = None
        self.bytes = 0

    def _known(self, key: Key, embedding: npt.NDArray[np.float32] | None) -> Hits | None:
        entry = self._entries.get(key)
        if entry is None or not _same(key, entry.embedding, embedding):
            return None
        self._entries.move_to_end(key)
        return entry.hits

    def _keep(self, key: Key, embedding: npt.NDArray[np.float32] | None, hits: Hits) -> None:
        entry = _entry(key, embedding, hits)
        if entry.bytes > self._most_bytes:
            return
        if (old := self._entries.pop(key, None)) is not None:
            self.bytes -= old.bytes
        self._entries[key] = entry
        self.bytes += entry.bytes
        while self.bytes > self._most_bytes:
            self.bytes -= self._entries.popitem(last=False)[1].bytes


def canonical(filter_text: str) -> str:
    """A filter's JSON, which must be valid, so that the same filter written otherwise is the same text."""
    return json.dumps(json.loads(filter_text), sort_keys=True, separators=(",", ":"))


def _key(asked: Asked, mode: Mode) -> Key:
    query = asked.query
    return (mode, query.tenant, asked.filter_text, query.num_passages, query.text)


def _leaders(keys: Sequence[Key], asked: Sequence[Asked], known: Sequence[Hits | None]) -> list[int | None]:
    """For each row the row that is searched for it, often itself; None where the answer is known."""
    first: dict[Key, int] = {}
    leaders: list[int | None] = []
    for row, (key, one) in enumerate(zip(keys, asked, strict=True)):
        if known[row] is not None:
            leaders.append(None)
            continue
        leader = first.setdefault(key, row)
        alike = leader == row or _same(key, asked[leader].query.embedding, one.query.embedding)
        leaders.append(leader if alike else row)
    return leaders


def _same(key: Key, one: npt.NDArray[np.float32] | None, other: npt.NDArray[np.float32] | None) -> bool:
    """Whether two embeddings that came with equal keys ask the same."""
    mode, *_, text = key
    if mode == "lexical":
        return True
    if one is None or other is None:
        return one is other  # both are still to come
    if not text.strip():  # then the vector is all that is asked
        return np.array_equal(one, other)
    difference = one - other
    return float(np.dot(difference, difference)) <= _SAME_SQUARED_DISTANCE


def _entry(key: Key, embedding: npt.NDArray[np.float32] | None, hits: Hits) -> _Entry:
    """Copies: what comes from a batch is a view that would keep the whole batch in memory."""
    mode, tenant, filter_text, _, text = key
    kept = None if embedding is None or mode == "lexical" else embedding.copy()
    hits = Hits(passage_ids=hits.passage_ids.copy(), scores=hits.scores.copy())
    texts = sum(sys.getsizeof(value) for value in (tenant or "", filter_text, text))
    arrays = hits.passage_ids.nbytes + hits.scores.nbytes + (0 if kept is None else kept.nbytes)
    return _Entry(embedding=kept, hits=hits, bytes=_ENTRY_BYTES + texts + arrays)


def _require(hits: Hits | None) -> Hits:
    assert hits is not None  # noqa: S101 - without a leader it is known
    return hits
