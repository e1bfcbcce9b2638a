"""Texts of different lengths into rows of one length, with little padding. Pure functions on lengths.

Several texts may share a row: the graph's block-diagonal mask keeps them apart. What a batch costs is taken to be
`rows * row_tokens * (1 + row_tokens / n)`, where a row of n tokens costs twice as much a token as a very short one, and it gets the
number of rows for which that is least. n depends on what the graph does with places that no text fills:

- The fp32 graph computes them. Zen 4, 1,024 tokens a call: 82 us a token in rows of 32, 88 at 64, 100 at 128, 120 at 256. 500 fits
  those figures best; 700 takes no longer and computes fewer tokens, 1.00 to 1.05 of the real ones.
- The int8 graph leaves them out of all but attention. A Xeon with AMX, 128 tokens a call: 60 us a token in rows of 32, 74 at 64,
  100 at 128. There short rows are worth some padding.

Small calls keep their intermediate results in a core's own cache: hence `BATCH_TOKENS`.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# On Zen 4 calls of 128 to 512 tokens cost the same per text. On a Xeon with AMX and 2 MB of cache a core a question costs
# 1.3 times as much in calls of 512 as in calls of 128 (docs/benchmarks/embedder.md).
BATCH_TOKENS: Final = 128
_TWICE_AS_DEAR: Final = 700  # tokens of a row that costs twice as much a token as a very short one
_TWICE_AS_DEAR_TOKENS_ALONE: Final = 107
_WIDTHS: Final = tuple(1 + step / 8 for step in range(24))  # row lengths tried, in lengths of the longest text


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One call of the encoder: `texts[i]` (index into the caller's sequence) fills the places
    `starts[i] ... starts[i] + length - 1` of the flattened [rows, row_tokens] grid, never across the end of a row.
    """

    rows: int
    row_tokens: int
    texts: tuple[int, ...]
    starts: tuple[int, ...]

    @property
    def places(self) -> int:
        """Places in the grid, filled or not."""
        return self.rows * self.row_tokens


def pack(lengths: Sequence[int], *, batch_tokens: int = BATCH_TOKENS, tokens_alone: bool = False) -> list[Batch]:
    """Deal texts of the given lengths (tokens, each at least 1) out to batches of about `batch_tokens` tokens.

    Every text is in exactly one batch. Texts of like length go together, so rows come out even. A batch holds at most
    `batch_tokens` real tokens, or one text that is longer by itself. `tokens_alone`: the graph computes attention alone for places
    that no text fills.
    """
    dear = _TWICE_AS_DEAR_TOKENS_ALONE if tokens_alone else _TWICE_AS_DEAR
    order = sorted(range(len(lengths)), key=lambda text: -lengths[text])
    return [_arrange(group, lengths, dear) for group in _cut(order, lengths, batch_tokens)]


def one_per_row(lengths: Sequence[int]) -> Batch:
    """The ordinary padded batch: text i in row i, rows as long as the longest text."""
    width = max(lengths)
    texts = range(len(lengths))
    return Batch(rows=len(lengths), row_tokens=width, texts=tuple(texts), starts=tuple(text * width for text in texts))


def _cut(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Consecutive groups of nearly equal token counts: a small last batch would cost a call for little."""
    total = sum(lengths)
    calls = max(1, -(-total // batch_tokens))
    goal = -(-total // calls)
    groups: list[list[int]] = []
    used = 0
    for text in order:
        # The next text joins while the group is short of its share, and only if it fits.
        if not groups or used >= goal or used + lengths[text] > batch_tokens:
            groups.append([])
            used = 0
        groups[-1].append(text)
        used += lengths[text]
    return groups


def _arrange(group: Sequence[int], lengths: Sequence[int], dear: int) -> Batch:
    """The cheapest of the candidate arrangements of one group (longest text first)."""
    longest, total = lengths[group[0]], sum(lengths[text] for text in group)
    candidates = {len(group)} | {-(-total // int(longest * width)) for width in _WIDTHS}
    dealt = [_deal(group, lengths, min(rows, len(group))) for rows in candidates]
    width, rows = min(dealt, key=lambda candidate: _cost(len(candidate[1]), candidate[0], dear))
    return _to_batch(rows, width, lengths)


def _cost(rows: int, row_tokens: int, dear: int) -> float:
    return rows * row_tokens * (1 + row_tokens / dear)


def _deal(group: Sequence[int], lengths: Sequence[int], rows: int) -> tuple[int, list[list[int]]]:
    """Each text, longest first, to the row that is shortest so far; returns the longest row's tokens and the rows.

    Graham's longest-processing-time rule: at most 4/3 of the best possible longest row (SIAM J. Appl. Math. 17, 1969).
    """
    heap = [(0, row) for row in range(rows)]
    dealt: list[list[int]] = [[] for _ in range(rows)]
    for text in group:
        used, row = heap[0]
        dealt[row].append(text)
        heapq.heapreplace(heap, (used + lengths[text], row))
    return max(used for used, _ in heap), dealt


def _to_batch(rows: Sequence[Sequence[int]], row_tokens: int, lengths: Sequence[int]) -> Batch:
    texts: list[int] = []
    starts: list[int] = []
    for number, row in enumerate(rows):
        at = number * row_tokens
        for text in row:
            texts.append(text)
            starts.append(at)
            at += lengths[text]
    return Batch(rows=len(rows), row_tokens=row_tokens, texts=tuple(texts), starts=tuple(starts))
