"""Passages to vectors over all cores, in order: several encoders of one thread each, a window of passages at a time each.

One thread an encoder and as many encoders as cores is 1.5 times as fast as one encoder with all threads
(docs/benchmarks/embedder.md).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.writer import NewPassage
from tritonrag_client.contract import InputType, Passage
from tritonrag_export.documents.cutting import TokenCounter
from tritonrag_export.indexing.resume import EmbeddingJournal

Float32Array = npt.NDArray[np.float32]

# What is embedded. The title tells what a passage from the middle of a page is about.
TEMPLATE: Final = "{title}\n{text}"
# Passages embedded in one call: the encoder sorts them by length and packs about five to a batch, so the batches of a window
# come out even, and progress is told every few seconds on a slow machine too.
WINDOW: Final = 256
# Windows that are read ahead for each encoder, so that none waits while the next documents are read.
_AHEAD: Final = 2


class Embedded(Protocol):
    """What an encoder returns."""

    @property
    def vectors(self) -> Float32Array:
        """FP32 [n, dim], unit length, in the order of the texts."""
        ...

    @property
    def truncated(self) -> int:
        """Texts that were longer than the model reads."""
        ...


class PassageEncoder(TokenCounter, Protocol):
    """What building needs of `tritonrag_backends.embedding.Encoder`."""

    @property
    def name(self) -> str: ...  # noqa: D102 - as in EmbeddingRecord
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def max_tokens(self) -> int: ...  # noqa: D102
    def encode(self, texts: Sequence[str], *, input_type: InputType = "query") -> Embedded:
        """Embed the texts in length-sorted batches, as what they are."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedWindow:
    """Passages with their vectors FP32 [n, dim]; `reused` of them came from a run that was broken off."""

    passages: list[NewPassage]
    vectors: Float32Array
    truncated: int
    reused: int


def embedding_text(passage: Passage) -> str:
    """The text whose vector stands for the passage."""
    return TEMPLATE.format(title=passage.title, text=passage.text)


def encode_windows(
    passages: Iterable[NewPassage], encoders: Sequence[PassageEncoder], journal: EmbeddingJournal | None
) -> Iterator[EncodedWindow]:
    """Embed passages window by window, each window by one encoder, and give them back in order. Raises what an encoder raises.

    At most `_AHEAD` windows an encoder are in memory. What `journal` holds is not embedded again; what is embedded goes into it.
    """
    free: SimpleQueue[PassageEncoder] = SimpleQueue()
    for encoder in encoders:
        free.put(encoder)

    def encode(texts: list[str]) -> tuple[Float32Array, int]:
        encoder = free.get()
        try:
            embedded = encoder.encode(texts, input_type="passage")
        finally:
            free.put(encoder)
        return embedded.vectors, embedded.truncated

    with ThreadPoolExecutor(len(encoders), thread_name_prefix="embed") as pool:
        begun: deque[tuple[_Window, Future[tuple[Float32Array, int]] | None]] = deque()
        try:
            for window in _windows(passages, journal):
                begun.append((window, pool.submit(encode, window.new_texts) if window.new_texts else None))
                if len(begun) > _AHEAD * len(encoders):
                    yield _finished(*begun.popleft(), journal)
            while begun:
                yield _finished(*begun.popleft(), journal)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Window:
    """Passages of one call: `known` maps places to vectors from the journal; the texts of all others are `new_texts`."""

    def __init__(self, passages: list[NewPassage], journal: EmbeddingJournal | None) -> None:
        self.passages = passages
        texts = [embedding_text(new.passage) for new in passages]
        found = [None if journal is None else journal.find(text) for text in texts]
        self.known = {place: vector for place, vector in enumerate(found) if vector is not None}
        self.new_texts = [text for place, text in enumerate(texts) if place not in self.known]


def _windows(passages: Iterable[NewPassage], journal: EmbeddingJournal | None) -> Iterator[_Window]:
    gathered: list[NewPassage] = []
    for passage in passages:
        gathered.append(passage)
        if len(gathered) == WINDOW:
            yield _Window(gathered, journal)
            gathered = []
    if gathered:
        yield _Window(gathered, journal)


def _finished(
    window: _Window, future: Future[tuple[Float32Array, int]] | None, journal: EmbeddingJournal | None
) -> EncodedWindow:
    new, truncated = future.result() if future is not None else (np.empty((0, 0), np.float32), 0)
    if journal is not None and len(new):
        journal.append(window.new_texts, new)
    fresh = iter(new)
    rows = [window.known.get(place) for place in range(len(window.passages))]
    vectors = np.stack([next(fresh) if row is None else row for row in rows])
    return EncodedWindow(passages=window.passages, vectors=vectors, truncated=truncated, reused=len(window.known))


def given_windows(
    passages: Iterable[NewPassage], vectors: "GivenVectors", advance: Callable[[], None] = lambda: None
) -> Iterator[EncodedWindow]:
    """Passages with vectors that their owner has made, row for row."""
    for window in _windows(passages, None):
        yield EncodedWindow(passages=window.passages, vectors=vectors.next(window.passages), truncated=0, reused=0)
        advance()


class GivenVectors(Protocol):
    """A source of vectors in the order of the passages."""

    def next(self, passages: Sequence[NewPassage]) -> Float32Array:
        """The vectors of the next passages, FP32 [n, dim] of unit length."""
        ...
