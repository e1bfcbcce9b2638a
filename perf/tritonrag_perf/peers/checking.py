"""What a server finds, held to exact search before anything is timed."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_client.contract import Passage
from tritonrag_client.errors import InternalError
from tritonrag_perf.peers.exact import Float32Array, Int64Array, best_rows, recall, same_answer
from tritonrag_perf.peers.export import Exported
from tritonrag_perf.peers.load_process import connected
from tritonrag_perf.peers.wire import Found, Protocol, parse, request

_TOGETHER: Final = 8
# Sums in another order, and int8 graphs whose activations are rounded by what shares the batch.
_TOLERANCE: Final[Mapping[str, float]] = {"fp32": 1e-4, "int8": 5e-3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """`recall_at_k` is against exact search with the fp32 model; `exact_share` is of answers that are, but for rounding, those of
    exact search with the server's own precision: 1 where its index is exact.
    """

    recall_at_k: float
    exact_share: float


class Oracle:
    """The exact answers to some questions, over exported passages."""

    def __init__(self, data: Path, questions: Sequence[str], k: int) -> None:
        self._embedder = Path(Exported.read(data).embedder)
        self._vectors: Float32Array = np.load(data / "vectors.npy")
        self._ids: Int64Array = np.load(data / "ids.npy")
        lines = (data / "passages.jsonl").read_bytes().splitlines()
        self._passages = dict(zip(self._ids.tolist(), lines, strict=True))
        self._rows = {int(id_): row for row, id_ in enumerate(self._ids)}
        self._questions, self._k = tuple(questions), min(k, len(self._ids))
        self._embedded = {precision: self._embed(precision) for precision in _TOLERANCE}
        self._wanted = self._ids[best_rows(self._vectors, self._embedded["fp32"], self._k)]

    def check(self, protocol: Protocol, address: str, precision: str) -> Checked:
        """Ask a server everything. Raises InternalError where an answer is no answer, or a passage bears another's id."""
        found = asyncio.run(self._ask(protocol, address))
        return self.judge(found, precision)

    def judge(self, found: Sequence[Found], precision: str) -> Checked:
        """Hold answers, one for each question, to exact ones. Raises InternalError as `check` does."""
        for answer in found:
            self._require_own_texts(answer)
        vectors = self._embedded[precision]
        exact = np.take_along_axis(vectors @ self._vectors.T, best_rows(self._vectors, vectors, self._k), axis=1)
        same = [
            same_answer(self._scores(vector, answer), best.tolist(), tolerance=_TOLERANCE[precision])
            for vector, answer, best in zip(vectors, found, exact, strict=True)
        ]
        return Checked(recall_at_k=recall(_padded(found, self._k), self._wanted), exact_share=sum(same) / len(same))

    async def _ask(self, protocol: Protocol, address: str) -> list[Found]:
        async with connected(protocol, address, clients=_TOGETHER) as ask:
            found: list[Found] = []
            for start in range(0, len(self._questions), _TOGETHER):
                part = self._questions[start : start + _TOGETHER]
                bodies = await asyncio.gather(*(ask(request(protocol, question, self._k)) for question in part))
                found += [parse(protocol, body) for body in bodies]
        return found

    def _embed(self, precision: str) -> Float32Array:
        opened = Encoder.open(self._embedder, precision="fp32" if precision == "fp32" else "int8")
        return opened.encode(self._questions).vectors

    def _scores(self, vector: Float32Array, answer: Found) -> list[float]:
        """The exact scores of the passages that were found, best first."""
        scores: Float32Array = self._vectors[[self._rows[id_] for id_ in answer.ids]] @ vector
        return sorted(scores.tolist(), reverse=True)

    def _require_own_texts(self, answer: Found) -> None:
        for id_, text in zip(answer.ids, answer.texts, strict=True):
            line = self._passages.get(id_)
            if line is None or Passage.from_json(line).text != text:
                raise InternalError(f"passage {id_} came with a text that is not its own: {text[:80]!r}")


def _padded(found: Sequence[Found], k: int) -> Int64Array:
    rows = [[*answer.ids[:k], *[-1] * (k - len(answer.ids))] for answer in found]
    return np.array(rows, np.int64)
