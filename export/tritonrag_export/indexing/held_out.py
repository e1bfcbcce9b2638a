"""The questions to which an index is tuned: single sentences out of its passages, whose own vectors are not in it.

A passage's vector stands for all of its sentences, so that a sentence's is as far from it as a question about it: searching for
them is as hard as serving, where searching for stored vectors would be too easy.
"""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.writer import NewPassage
from tritonrag_backends.text.sentences import sentence_spans
from tritonrag_export.indexing.encoding import PassageEncoder

# Half of them tell the recall: to 0.007 at 0.95, one standard error by the spread of single questions.
QUERIES: Final = 512
_LEAST_WORDS, _MOST_WORDS = 4, 40


class HeldOutQueries:
    """Draws passages while they go by (reservoir sampling, Vitter 1985, algorithm R), then makes a query of each."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a sample, no secret
        self._seen = 0
        self._drawn: list[str] = []

    def see(self, passages: Sequence[NewPassage]) -> None:
        """Let passages go by."""
        for new in passages:
            self._seen += 1
            if len(self._drawn) < QUERIES:
                self._drawn.append(new.passage.text)
            elif (place := self._random.randrange(self._seen)) < QUERIES:
                self._drawn[place] = new.passage.text

    def embed(self, encoders: Sequence[PassageEncoder]) -> npt.NDArray[np.float32]:
        """The queries FP32 [n, dim], made by all encoders at once: one of each passage drawn, unless it says nothing new."""
        queries = list(self._queries())
        share = -(-len(queries) // len(encoders))
        parts = [queries[start : start + share] for start in range(0, len(queries), max(share, 1))]
        with ThreadPoolExecutor(len(encoders), thread_name_prefix="embed") as pool:
            embedded = list(pool.map(lambda encoder, part: encoder.encode(part).vectors, encoders, parts))
        return np.concatenate(embedded)

    def _queries(self) -> Iterator[str]:
        """A sentence of each passage, none twice: tuning would go by those that stand in many passages."""
        taken: set[str] = set()
        for text in self._drawn:
            sentences = {text[start:end]: None for start, end in sentence_spans(text, 0, len(text))}
            fit = [one for one in sentences if _LEAST_WORDS <= len(one.split()) <= _MOST_WORDS] or [text]
            if left := [one for one in fit if one not in taken]:
                taken.add(query := self._random.choice(left))
                yield query
