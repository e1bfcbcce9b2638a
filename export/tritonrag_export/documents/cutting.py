"""Cutting a sentence that is too long for a passage: at a line end, else between words, else between tokens."""

import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from tritonrag_backends.text.sentences import strip_span

_MOST_ACCENTS: Final = 4  # on one letter: they stay with it


class TokenCounter(Protocol):
    """The part of an embedding model's tokenizer that chunking needs. Special tokens are not counted."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens in each text."""
        ...

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token begins and ends, in characters of `text`."""
        ...


def cut(
    text: str, tokens: TokenCounter, *, target_tokens: int, max_tokens: int, max_chars: int
) -> list[tuple[int, int, int]]:
    """Cut a text into spans of about `target_tokens`; none has more than `max_tokens` or `max_chars` characters.

    Returns (start, end, tokens) for each, in order, without white space around them; blank ones are left out.
    """
    starts = [start for start, _ in tokens.token_offsets(text)]
    parts = -(-len(starts) // target_tokens)  # of even size, rather than full ones and a crumb
    budget = -(-len(starts) // max(1, parts))
    todo = list(_windows(text, starts, budget or 1, max_chars))
    done: list[tuple[int, int, int]] = []
    while todo:
        counts = tokens.count_tokens([text[start:end] for start, end in todo])
        measured = list(zip(todo, counts, strict=True))
        done += [(start, end, count) for (start, end), count in measured if count <= max_tokens]
        # A piece of a word can have more tokens than the same characters had within it. Halve those.
        todo = [half for span, count in measured if count > max_tokens for half in _halves(text, *span)]
    return sorted(done)


def _windows(text: str, token_starts: list[int], budget: int, max_chars: int) -> Iterator[tuple[int, int]]:
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        behind = bisect_left(token_starts, position) + budget
        limit = min(token_starts[behind] if behind < len(token_starts) else len(text), position + max_chars)
        end = _good_end(text, position, max(limit, position + 1))
        yield position, position + len(text[position:end].rstrip())
        position = end


def _good_end(text: str, start: int, limit: int) -> int:
    """The best place for a cut in (start, limit]: a line end in the second half, else the last white space, else limit."""
    if limit >= len(text) or text[limit].isspace():
        return limit
    line_end = text.rfind("\n", (start + limit) // 2, limit)
    if line_end > start:
        return line_end
    for place in range(limit - 1, start, -1):
        if text[place].isspace():
            return place
    for place in range(limit, max(start, limit - _MOST_ACCENTS), -1):
        if not unicodedata.combining(text[place]):
            return place
    return limit


def _halves(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    middle = _good_end(text, start, (start + end) // 2) if end - start > 1 else end
    for first, behind in ((start, middle), (middle, end)):
        yield from strip_span(text, first, behind)
