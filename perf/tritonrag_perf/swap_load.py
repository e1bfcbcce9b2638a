"""Clients that ask `retriever` without a pause and hold every answer to the version that it says it comes from."""

import random
import threading
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tritonrag_client.contract import (
    EMBEDDING,
    FILTER,
    INDEX_VERSION,
    MODE,
    NUM_PASSAGES,
    PASSAGE_IDS,
    PASSAGES,
    RETRIEVER,
    SCORES,
    TENANT,
    TEXT_INPUT,
)
from tritonrag_perf.swap_corpus import Row
from tritonrag_perf.swap_oracle import Digest, Oracle, digest

_TIMEOUT_S = 30.0
_MOST_NAMED = 5


@dataclass(slots=True, kw_only=True)
class Tally:
    """What clients saw. `wrong` names answers that are not those of their version; both lists stop at a few."""

    answers: int = 0
    failures: int = 0
    wrong: int = 0
    named: list[str] = field(default_factory=list)
    versions: Counter[int] = field(default_factory=Counter)
    latencies_ms: array = field(default_factory=lambda: array("f"))  # type: ignore[type-arg]  # array() takes no parameter before 3.12

    def name(self, what: str) -> None:
        """Keep one of the first few failures in words."""
        if len(self.named) < _MOST_NAMED:
            self.named.append(what)

    def add(self, other: "Tally") -> None:
        """Take another client's into this one."""
        self.answers += other.answers
        self.failures += other.failures
        self.wrong += other.wrong
        self.versions.update(other.versions)
        self.latencies_ms.extend(other.latencies_ms)
        for what in other.named:
            self.name(what)

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latency."""
        return float(np.percentile(np.frombuffer(self.latencies_ms, np.float32), percent))


class RetrieverClient:
    """Sends requests of `swap_corpus` to one server."""

    def __init__(self, url: str, requests: Sequence[Sequence[Row]]) -> None:
        self._client = triton.InferenceServerClient(url)
        self._requests = [_inputs(rows) for rows in requests]

    def ask(self, request: int) -> tuple[int, Digest]:
        """The index version that answered, and the answer's digest. Raises InferenceServerException."""
        result = self._client.infer(RETRIEVER, self._requests[request], client_timeout=_TIMEOUT_S)
        versions = result.as_numpy(INDEX_VERSION)
        if len(np.unique(versions)) != 1:
            return -1, b""
        answer = digest(result.as_numpy(PASSAGE_IDS), result.as_numpy(SCORES), result.as_numpy(PASSAGES).ravel())
        return int(versions[0, 0]), answer

    def close(self) -> None:
        """End the connection."""
        self._client.close()


class Clients:
    """`count` clients, each on a thread; entering starts them, leaving ends them and completes `tally`."""

    def __init__(self, url: str, requests: Sequence[Sequence[Row]], oracle: Oracle, *, count: int) -> None:
        self._url, self._requests, self._oracle = url, requests, oracle
        self._stop = threading.Event()
        self._early: list[tuple[int, int, Digest]] = []  # answers of versions that the oracle did not know yet
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(count)]
        self.tally = Tally()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for early in self._early:
            self._judge(self.tally, *early)

    def _run(self, seed: int) -> None:
        draw, tally = random.Random(seed), Tally()  # noqa: S311 - repeatable, not secret
        client = RetrieverClient(self._url, self._requests)
        while not self._stop.is_set():
            self._ask(client, draw.randrange(len(self._requests)), tally)
        client.close()
        with self._lock:
            self.tally.add(tally)

    def _ask(self, client: RetrieverClient, request: int, tally: Tally) -> None:
        started_s = time.perf_counter()
        try:
            version, answer = client.ask(request)
        except InferenceServerException as error:
            tally.failures += 1
            tally.name(f"request {request} failed: {error}")
            return
        tally.latencies_ms.append((time.perf_counter() - started_s) * 1000)
        tally.answers += 1
        tally.versions[version] += 1
        if self._oracle.knows(version):
            self._judge(tally, version, request, answer)
        else:
            with self._lock:
                self._early.append((version, request, answer))

    def _judge(self, tally: Tally, version: int, request: int, answer: Digest) -> None:
        if not (self._oracle.knows(version) and self._oracle.is_right(version, request, answer)):
            tally.wrong += 1
            tally.name(f"request {request}: the answer is not that of version {version}, from which it says it comes")


def _inputs(rows: Sequence[Row]) -> list[triton.InferInput]:
    """All inputs in every request, so that Triton batches requests of all kinds together."""
    texts = {TEXT_INPUT: "text", TENANT: "tenant", FILTER: "filter", MODE: "mode"}
    inputs = [
        _input(EMBEDDING, "FP32", np.stack([row.embedding for row in rows])),
        _input(NUM_PASSAGES, "INT32", np.array([[row.num_passages] for row in rows], np.int32)),
    ]
    for name, attribute in texts.items():
        column = [[getattr(row, attribute).encode()] for row in rows]
        inputs.append(_input(name, "BYTES", np.array(column, np.object_)))
    return inputs


def _input(name: str, datatype: str, values: np.ndarray) -> triton.InferInput:  # type: ignore[type-arg]
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor
