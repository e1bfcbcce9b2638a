"""Lexical search: BM25 over the terms of all segments, with the statistics of what the asker may see and of nothing else.

A passage's score is the sum over the question's terms of
    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * words / average))
with N visible passages, n of them with the term, f times in this one; `average` is the visible passages' mean number of words.
This is the variant "lucene" of Kamphuis et al., Which BM25 Do You Mean? (ECIR 2020), with Lucene's k1 and b. Segments hold counts
and lengths alone: whatever else is in the index, scores are those of an index made of just the visible passages.
"""

import math
import threading
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.analysis import Analyzer
from tritonrag_backends.index.arrays import map_array
from tritonrag_backends.index.format import LENGTHS_FILE, TERMS
from tritonrag_backends.index.postings import ROW_TYPE, Int64Array, Postings, UInt16Array, UInt32Array
from tritonrag_backends.index.postings_writer import PostingsWriter, merge_postings

K1: Final = 1.2
B: Final = 0.75

Float32Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Found = tuple[Int64Array, Float32Array]

# Measured on one core with 1M passages; twice or half as much makes little difference.
_SEEK: Final = 16  # looking a row up in a list takes as long as reading so many of its entries
_PICK: Final = 10  # reading the scores of some rows takes as long as of so many that lie one after the other
_GROUPS: Final = 8  # for each of k: more are nearer to the k-th best, fewer are faster
_SLACK: Final = 1 - 1e-5  # scores are sums in single precision: a bound has to hold by more than rounding can do
_LEAST_SCORE: Final = 1e-30  # more than that of rows that hold no term
_MOST_REMEMBERED: Final = 4_096
_KEPT: Final = threading.local()
_NOTHING: Final[Found] = (np.empty(0, np.int64), np.empty(0, np.float32))


class LexicalWriter:
    """Writes the terms and lengths of passages into a segment's folder. Memory: 4 bytes a passage, and PostingsWriter's."""

    def __init__(self, folder: Path, analyzer: Analyzer) -> None:
        self._path = folder / LENGTHS_FILE
        self._analyzer = analyzer
        self._postings = PostingsWriter(folder, TERMS, counts=True)
        self._lengths = array("I")

    def add(self, row: int, text: str) -> None:
        """Add the text of a row. Every row is added, in order, from 0."""
        assert row == len(self._lengths)  # noqa: S101 - lengths are found by their row
        terms = self._analyzer.terms(text)
        self._lengths.append(len(terms))
        self._postings.add(row, {term.encode(): count for term, count in Counter(terms).items()})

    def finish(self) -> None:
        """Write the files."""
        np.save(self._path, np.frombuffer(self._lengths, np.uint32).astype(ROW_TYPE), allow_pickle=False)
        self._postings.finish()

    def close(self) -> None:
        """Remove what is temporary. Closing twice is the same as once."""
        self._postings.close()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LexicalSegment:
    """The terms of one segment, mapped. `lengths` is UINT32 [rows], words of each passage."""

    postings: Postings
    lengths: UInt32Array

    @classmethod
    def open(cls, folder: Path, *, rows: int) -> "LexicalSegment":
        """Map files whose sha256 was checked. Raises InternalError where they do not fit one another."""
        return cls(
            postings=Postings.open(folder, TERMS, rows=rows, counts=True),
            lengths=map_array(folder / LENGTHS_FILE, ROW_TYPE, (rows,)),
        )


def merge_lexical(sources: Sequence[tuple[LexicalSegment, Int64Array]], folder: Path) -> None:
    """Write a merged segment's terms and lengths; row maps as `merge_postings` takes them."""
    lengths = np.concatenate([segment.lengths[row_map >= 0] for segment, row_map in sources])
    np.save(folder / LENGTHS_FILE, lengths, allow_pickle=False)
    merge_postings([(segment.postings, row_map) for segment, row_map in sources], folder, TERMS, counts=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LexicalView:
    """One segment as one asker sees it. Statistics come from the `visible` rows, BOOL [rows], None: all; found are those of
    them that are `allowed`, None: all of them. `passages` and `words` are what `count_visible` says. Keep it: it remembers.
    """

    segment: LexicalSegment
    visible: Mask | None
    allowed: Mask | None
    passages: int
    words: int
    _holders: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    def holders(self, position: int) -> int:
        """How many visible passages hold the term at this position."""
        postings = self.segment.postings
        if self.visible is None:
            return postings.size_of(position)
        known = self._holders.get(position)
        if known is None:
            known = int(np.count_nonzero(self.visible.take(postings.rows_of(position))))
            if len(self._holders) < _MOST_REMEMBERED:
                self._holders[position] = known
        return known


def count_visible(segment: LexicalSegment, visible: Mask | None) -> tuple[int, int]:
    """How many passages an asker sees (None: all), and how many words they have."""
    lengths = segment.lengths if visible is None else segment.lengths[visible]
    return len(lengths), int(lengths.sum(dtype=np.int64))


def search_lexical(views: Sequence[LexicalView], terms: Sequence[str], k: int) -> list[Found]:
    """The best rows of each view for a question's terms: INT64 [n] and their scores FP32 [n], by score, then by row.

    n is k at most; a passage without any of the terms is not found. A term that is asked twice counts twice. The same views and
    terms give the same scores to the bit: a row's are always added in the same order. Safe for many threads.
    """
    passages, words = sum(view.passages for view in views), sum(view.words for view in views)
    weighted = _weigh(views, terms, passages)
    found: list[Found] = []
    for number, view in enumerate(views):
        held = [_Held(weight, position) for weight, places in weighted if (position := places[number]) is not None]
        found.append(_best(_Bm25(view, words / passages), held, k) if held else _NOTHING)
    return found


@dataclass(frozen=True, slots=True)
class _Held:
    """A term of the question that a segment holds: what it weighs, and where it stands among the segment's."""

    weight: float
    position: int


def _weigh(
    views: Sequence[LexicalView], terms: Sequence[str], passages: int
) -> list[tuple[float, tuple[int | None, ...]]]:
    """The weight of each term that someone may see, and its position in each view; heaviest first, which is rarest first."""
    weighted = []
    for term, times in Counter(terms).items():
        places = tuple(view.segment.postings.find(term.encode()) for view in views)
        n = sum(view.holders(place) for view, place in zip(views, places, strict=True) if place is not None)
        if n:
            weighted.append((times * math.log(1 + (passages - n + 0.5) / (n + 0.5)), term, places))
    return [(weight, places) for weight, _, places in sorted(weighted, key=lambda one: (-one[0], one[1]))]


def _best(bm25: "_Bm25", terms: Sequence[_Held], k: int) -> Found:
    """List after list, shortest first, until the terms left can't lift a row that holds none of those before into the best k.

    Then only rows that can still get there are looked up in the lists left, which are the long ones. That is MaxScore (Turtle and
    Flood, Query evaluation: strategies and optimizations, 1995), and exact.
    """
    sums, least = _Sums(len(bm25.lengths)), 0.0  # `least`: the k-th best scores no less
    try:
        for i, term in enumerate(terms):
            left = sum(other.weight for other in terms[i:])  # an impact is less than its weight
            if left < least:
                entries = sum(bm25.postings.size_of(other.position) for other in terms[i:])
                rows = sums.few_at_least(least - left, most=entries // _SEEK)
                if rows is not None:
                    return _top(*bm25.complete(rows, sums.of(rows), terms[i:], k), k)
            listed, impacts = bm25.impacts(term)
            scores = sums.plus(listed, impacts)
            least = max(least, _floor_of_kth(scores, k) * _SLACK)
            if i == len(terms) - 1:  # of the longest list only what can be among the best is kept
                good = np.flatnonzero(scores >= least)
                listed, scores = listed[good], scores[good]
            sums.keep(listed, scores)
        rows = sums.at_least(least)
        return _top(rows, sums.of(rows), k)
    finally:
        sums.clear()


class _Bm25:
    """The formula, for one view."""

    def __init__(self, view: LexicalView, average: float) -> None:
        self.postings: Final = view.segment.postings
        self.lengths: Final = view.segment.lengths
        self._mask = view.visible if view.allowed is None else view.allowed
        self._base, self._per_word = np.float32(K1 * (1 - B)), np.float32(K1 * B / average)

    def impacts(self, term: _Held) -> Found:
        """The allowed rows that hold the term, INT64 [n] ascending, and what it adds to the score of each."""
        rows, counts = self.postings.rows_of(term.position).astype(np.int64), self.postings.counts_of(term.position)
        if self._mask is not None:
            allowed = self._mask.take(rows)
            rows, counts = rows[allowed], counts[allowed]
        return rows, self._formula(term.weight, rows, counts)

    def complete(self, rows: Int64Array, scores: Float32Array, terms: Sequence[_Held], k: int) -> Found:
        """Of some rows, ascending, those that may be the best k, with what these terms add to their scores.

        Before each list, which are ever longer and ever lighter, the rows that it and those after it can't lift any more are left.
        """
        left = sum(term.weight for term in terms)
        for term in terms:
            good = np.flatnonzero(scores >= _floor_of_kth(scores, k) * _SLACK - left)
            rows, scores = rows[good], scores[good]
            left -= term.weight
            wanted = rows.astype(ROW_TYPE)  # the type of the list, or NumPy would convert the list
            listed = self.postings.rows_of(term.position)
            places = np.minimum(np.searchsorted(listed, wanted), len(listed) - 1)
            hits = np.flatnonzero(listed[places] == wanted)
            counts = self.postings.counts_of(term.position)[places[hits]]
            scores[hits] += self._formula(term.weight, rows[hits], counts)
        return rows, scores

    def _formula(self, weight: float, rows: Int64Array, counts: UInt16Array) -> Float32Array:
        impacts = counts.astype(np.float32)
        damped = self.lengths.take(rows).astype(np.float32)
        damped *= self._per_word
        damped += self._base
        damped += impacts
        impacts /= damped
        impacts *= np.float32(weight)
        return impacts


class _Sums:
    """Scores by row, in an array that each thread keeps and that is all zeros between two searches.

    Sorting the lists' entries together instead takes as long for 10,000 passages, and for 1M half as long again.
    """

    def __init__(self, rows: int) -> None:
        kept: Float32Array | None = _KEPT.__dict__.pop("scores", None)  # nobody gets it back if it isn't cleared
        self._kept = kept if kept is not None and len(kept) >= rows else np.zeros(rows, np.float32)
        self._scores = self._kept[:rows]
        self._lists: list[Int64Array] = []
        self._last: Float32Array = self._scores[:0]

    def plus(self, rows: Int64Array, impacts: Float32Array) -> Float32Array:
        """The rows' scores with these impacts, which are overwritten. Nothing is kept."""
        if self._lists:
            impacts += self._scores.take(rows)
        return impacts

    def keep(self, rows: Int64Array, scores: Float32Array) -> None:
        """Set the scores of rows."""
        self._lists.append(rows)
        self._last = scores
        self._scores[rows] = scores

    def of(self, rows: Int64Array) -> Float32Array:
        """The scores of rows."""
        return self._scores.take(rows)

    def at_least(self, least: float) -> Int64Array:
        """The rows that were set and score so much, ascending, each once."""
        return self._rows_of(self._masks(least))

    def few_at_least(self, least: float, *, most: int) -> Int64Array | None:
        """The same; None where there are more than `most`, which is seen at the last list as a rule."""
        if np.count_nonzero(self._last >= least) > most:
            return None
        masks = self._masks(least)
        return None if sum(map(np.count_nonzero, masks)) > most else self._rows_of(masks)

    def clear(self) -> None:
        """Make the array fit for the next search."""
        if self._many:
            self._scores.fill(0)
        else:
            for rows in self._lists:
                self._scores[rows] = 0
        _KEPT.scores = self._kept

    @property
    def _many(self) -> bool:
        return sum(map(len, self._lists)) * _PICK > len(self._scores)

    def _masks(self, least: float) -> list[Mask]:
        """Which of all rows score so much, or, where that is cheaper, which of each list's."""
        if self._many:
            return [self._scores >= max(least, _LEAST_SCORE)]
        return [self._scores.take(rows) >= least for rows in self._lists]

    def _rows_of(self, masks: Sequence[Mask]) -> Int64Array:
        if self._many:
            return np.flatnonzero(masks[0])
        parts = [rows[mask] for rows, mask in zip(self._lists, masks, strict=True)]
        once: Int64Array = np.unique(np.concatenate(parts))
        return once


def _floor_of_kth(scores: Float32Array, k: int) -> float:
    """A score that the k-th best reaches; close to it, and cheaper than partitioning a long list: the k-th best of the best of
    many groups. 0 where there are no k.
    """
    if len(scores) < k:
        return 0.0
    width = len(scores) // (k * _GROUPS)
    if width > 1:
        groups = len(scores) // width
        scores = scores[: width * groups].reshape(width, groups).max(axis=0)
    return float(np.partition(scores, len(scores) - k)[len(scores) - k])


def _top(rows: Int64Array, scores: Float32Array, k: int) -> Found:
    if len(scores) > k * _GROUPS:
        good = np.flatnonzero(scores >= _floor_of_kth(scores, k))
        rows, scores = rows[good], scores[good]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
