"""What the peers have in common: the exported passages and vectors, FAISS, and the form of an answer."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a peer serves, from the variables that its starter sets."""

    data: Path
    port: int
    cores: int

    @classmethod
    def given(cls) -> "Place":
        """Raises KeyError where a variable is missing."""
        return cls(
            data=Path(os.environ["PEER_DATA"]),
            port=int(os.environ["PEER_PORT"]),
            cores=int(os.environ["PEER_CORES"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Store:
    """The passages in a FAISS index: row i is passage `ids[i]` (INT64 [n]), whose JSON is `passages[i]`."""

    ids: npt.NDArray[np.int64]
    passages: Sequence[bytes]
    index: Any  # faiss.Index: FAISS has no types

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Read what `tritonrag_perf.peers.export` wrote; a graph's file carries its effort.

        One FAISS thread: there are as many workers as cores.
        """
        faiss.omp_set_num_threads(1)
        # FAISS's own switch to BLAS comes too late for 384 dimensions: a batch of 32 is 2 to 3 times as fast with this.
        index = faiss.read_index(str(folder / "index.faiss"))
        faiss.cvar.distance_compute_blas_threshold = 8 * index.d
        return cls(
            ids=np.load(folder / "ids.npy"),
            passages=(folder / "passages.jsonl").read_bytes().splitlines(),
            index=index,
        )

    def search(self, vectors: npt.NDArray[np.float32], k: Sequence[int]) -> list[bytes]:
        """The answer to each question, as JSON: FP32 [n, dim] of unit length, and how many passages each asks for."""
        scores, rows = self.index.search(vectors, max(k))
        return [self._answer(one, best[:wanted]) for one, best, wanted in zip(scores, rows, k, strict=True)]

    def _answer(self, scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> bytes:
        rows = rows[rows >= 0]
        return answer(self.ids[rows], scores[: len(rows)], [self.passages[row] for row in rows])


def answer(ids: npt.ArrayLike, scores: npt.ArrayLike, passages: Sequence[bytes]) -> bytes:
    """The body of a response; passages are JSON already, and copied as they are."""
    body: dict[str, Any] = {
        "ids": ids,
        "scores": scores,
        "passages": [orjson.Fragment(passage) for passage in passages],
    }
    return bytes(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


def weights(folder: Path) -> Path:
    """The folder of the fp32 weights, as Hugging Face's libraries read it."""
    return Path(json.loads((folder / "peer.json").read_text(encoding="utf-8"))["weights"])


def answer_of_json(found: Iterable[tuple[int, float, Any]]) -> bytes:
    """The body of a response from ids, scores and passages, for libraries that keep passages as objects of their own."""
    ids, scores, passages = zip(*found, strict=True)
    body = {"ids": ids, "scores": scores, "passages": passages}
    return bytes(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))
