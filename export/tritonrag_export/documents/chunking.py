"""From a document to passages: as many whole sentences of one section as an embedding can say something about."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Final

from tritonrag_backends.text.pieces import pieces
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.cutting import TokenCounter, cut
from tritonrag_export.documents.model import Document
from tritonrag_export.documents.packing import Limits, Run, pack
from tritonrag_export.documents.sections import page_of, sections

# all-MiniLM-L6-v2 reads 256 tokens; this leaves room for its two special tokens and a title.
DEFAULT_MAX_TOKENS: Final = 224
DEFAULT_TARGET_TOKENS: Final = 160
_TITLE_TOKENS: Final = 30

_LEAST_MAX_TOKENS: Final = 16  # one character can be several tokens
_CHARS_PER_TOKEN: Final = 8  # prose has 4 to 5; a megabyte without a space may be one unknown token
_BATCH: Final = 4096  # pieces that are counted in one call
_MAX_INDENT: Final = 80


def fitting_tokens(passage_tokens: int) -> int:
    """The `max_tokens` for a model that reads so many tokens of a passage and its title: the default where there is room."""
    return max(_LEAST_MAX_TOKENS, min(DEFAULT_MAX_TOKENS, passage_tokens - _TITLE_TOKENS))


def chunk(
    document: Document,
    tokens: TokenCounter,
    *,
    target_tokens: int = DEFAULT_TARGET_TOKENS,
    max_tokens: int = DEFAULT_MAX_TOKENS,
) -> Iterator[Passage]:
    """Cut a document into passages of about `target_tokens`, never more than `max_tokens` (special tokens not counted).

    A passage crosses no heading and holds whole sentences, but for a sentence over `max_tokens`, which is cut. Spans are exact
    (`document.text[p.start:p.end] == p.text`), in order, and together all of the text but headings, white space, and what
    holds no letter and no digit between two headings.
    Its title is the document's and the path of headings; its metadata the document's, with `page` where there are pages.
    Raises BadRequestError where the sizes make no sense.
    """
    if max_tokens < _LEAST_MAX_TOKENS:
        raise BadRequestError(f"max_tokens is {max_tokens}; it must be at least {_LEAST_MAX_TOKENS}")
    if not 1 <= target_tokens <= max_tokens:
        raise BadRequestError(f"target_tokens is {target_tokens}; it must be from 1 to max_tokens, {max_tokens}")
    limits = Limits(target_tokens=target_tokens, max_tokens=max_tokens, max_chars=max_tokens * _CHARS_PER_TOKEN)
    return _chunk(document, tokens, limits)


def _chunk(document: Document, tokens: TokenCounter, limits: Limits) -> Iterator[Passage]:
    for run in _runs(document, tokens, limits):
        text = document.text[run.start : run.end]
        if not any(map(str.isalnum, text)):
            continue  # a rule, a row of stars
        page = page_of(document, run.start)
        yield Passage(
            text=text,
            title=run.section.title,
            uri=document.uri,
            start=run.start,
            end=run.end,
            metadata=dict(document.metadata) if page is None else {**document.metadata, "page": page},
        )


def _runs(document: Document, tokens: TokenCounter, limits: Limits) -> Iterator[Run]:
    text = document.text
    for run in pack(_measured(document, tokens, limits), limits):
        whole = _indented(text, run)
        if whole.tokens + whole.extra_tokens > limits.max_tokens:
            count = tokens.count_tokens([text[whole.start : whole.end]])[0]
            yield from _within(text, tokens, replace(whole, tokens=count), limits)
        else:
            yield whole


def _measured(document: Document, tokens: TokenCounter, limits: Limits) -> Iterator[Run]:
    """Each piece of the document with its number of tokens; those over the limits in parts."""
    text = document.text
    found = ((piece, section) for section in sections(document) for piece in pieces(text, section.start, section.end))
    while batch := list(islice(found, _BATCH)):
        counts = tokens.count_tokens([text[piece.start : piece.end] for piece, _ in batch])
        for (piece, section), count in zip(batch, counts, strict=True):
            run = Run(
                start=piece.start,
                end=piece.end,
                tokens=count,
                block=piece.block,
                section=section,
                leads_in=text[piece.end - 1] == ":",
            )
            yield from _within(text, tokens, run, limits)


def _within(text: str, tokens: TokenCounter, run: Run, limits: Limits) -> Iterator[Run]:
    """The run itself where it keeps the limits, else its parts."""
    if run.tokens <= limits.max_tokens and run.end - run.start <= limits.max_chars + _MAX_INDENT:
        yield run
        return
    parts = cut(
        text[run.start : run.end],
        tokens,
        target_tokens=limits.target_tokens,
        max_tokens=limits.max_tokens,
        max_chars=limits.max_chars,
    )
    for start, end, count in parts:
        yield replace(run, start=run.start + start, end=run.start + end, tokens=count, leads_in=False)


def _indented(text: str, run: Run) -> Run:
    """The run with the indentation of its first line, where it has several: code and lists need it to look right."""
    if "\n" not in text[run.start : run.end]:
        return run
    earliest = max(run.section.start, run.start - _MAX_INDENT)
    line_start = text.rfind("\n", earliest, run.start) + 1 or earliest
    if text[line_start : run.start].strip():
        return run
    return replace(run, start=line_start, extra_tokens=run.extra_tokens + run.start - line_start)
