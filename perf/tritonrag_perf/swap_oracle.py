"""What each version of an index answers, told by the index library itself, which opened exactly that version."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index import Index
from tritonrag_backends.index.format import Manifest
from tritonrag_client.contract import NO_PASSAGE
from tritonrag_perf.swap_corpus import Row

Digest = bytes


class Oracle:
    """The right answer to each request, by version. Written by one thread, read by many."""

    def __init__(self, directory: Path, requests: Sequence[Sequence[Row]]) -> None:
        self._directory, self._requests = directory, requests
        self._answers: dict[int, list[Digest]] = {}

    def learn(self, manifest: Manifest) -> None:
        """Open this version anew, reusing nothing, and keep its answers."""
        if manifest.index_version not in self._answers:
            index = Index.of(self._directory, manifest)
            self._answers[manifest.index_version] = [right_answer(index, rows) for rows in self._requests]

    def knows(self, version: int) -> bool:
        """Whether this version was learnt."""
        return version in self._answers

    def is_right(self, version: int, request: int, digest: Digest) -> bool:
        """Whether this is the answer of a version that is known."""
        return self._answers[version][request] == digest

    @property
    def versions(self) -> int:
        """How many versions are known."""
        return len(self._answers)


def right_answer(index: Index, rows: Sequence[Row]) -> Digest:
    """What `retriever` must answer from this version, as `digest` puts it."""
    return digest(*right_tensors(index, rows))


def right_tensors(
    index: Index, rows: Sequence[Row]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], list[bytes]]:
    """`passage_ids` and `scores` [rows, k], padded, and the elements of `passages`."""
    shape = (len(rows), max(row.num_passages for row in rows))
    ids, scores = np.full(shape, NO_PASSAGE, np.int64), np.zeros(shape, np.float32)
    passages: list[bytes] = []
    for number, hits in enumerate(index.search([row.query for row in rows])):
        found = len(hits.passage_ids)
        ids[number, :found], scores[number, :found] = hits.passage_ids, hits.scores
        passages += [*index.passages(hits.passage_ids), *[b""] * (shape[1] - found)]
    return ids, scores, passages


def digest(ids: npt.NDArray[Any], scores: npt.NDArray[Any], passages: Iterable[bytes]) -> Digest:
    """Ids, scores and passages to the bit, in few bytes."""
    state = hashlib.blake2b(digest_size=16)
    state.update(np.ascontiguousarray(ids, "<i8").tobytes())
    state.update(np.ascontiguousarray(scores, "<f4").tobytes())
    for passage in passages:
        state.update(len(passage).to_bytes(8, "little") + passage)
    return state.digest()
