"""Mixed traffic for hours: searches, answers, streams, streams that are left, bad input; and an index that changes meanwhile."""

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index.merging import merge
from tritonrag_backends.index.operations import collect_garbage, delete_documents
from tritonrag_client import RagClient, RetryPolicy, Timeouts
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_export.indexing import add_documents
from tritonrag_perf.goodput_traffic import Due, Mix, perform, schedule

_CLIENTS: Final = 8
_TIMEOUT_S: Final = 30.0
_BAD: Final = 0.1  # share of requests that are wrong
_DOCUMENTS: Final = 4  # added, and later deleted, by a change
_LIVE_CHANGES: Final = 5  # whose documents are there at a time
_KEPT_VERSIONS: Final = 2
_NAMED: Final = 5


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of it: requests and failures by operation and code, changes of the index by kind; `named` are a few in words."""

    requests: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    named: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, operation: str, code: str = "") -> None:
        """A request that came to its end; `code` where that was not the one that it should be."""
        with self.lock:
            self.requests[operation] += 1
            if code:
                self.failures[f"{operation}: {code}"] += 1

    def name(self, what: str) -> None:
        """Keep the first few failures in words."""
        with self.lock:
            if len(self.named) < _NAMED:
                self.named.append(what)


def bad_requests() -> tuple[Callable[[RagClient], object], ...]:
    """Requests that must be refused as `bad_request`."""
    return (
        lambda client: client.search("a NUL \0 in it"),
        lambda client: client.search("How?", filter={"no_such_field": 1}),
        lambda client: client.search("x" * 100_000),
        lambda client: client.ask("How?", num_passages=100_000),
        lambda client: client.ask("How?", lora_name="nobody"),
    )


@contextmanager
def traffic(url: str, questions: Sequence[str], *, rate_per_s: float, seed: int) -> Iterator[Tally]:
    """An open loop of all of it, from several threads, until the end of the block."""
    tally, end = Tally(), threading.Event()

    def send(number: int) -> None:
        timeouts = Timeouts(connect_s=_TIMEOUT_S, total_s=_TIMEOUT_S)
        due = schedule(Mix(), questions, rate_per_s=rate_per_s / _CLIENTS, seed=seed + number)
        with RagClient(url, timeouts=timeouts, retry=RetryPolicy(attempts=1)) as client:
            _send(client, due, random.Random(seed + number), tally, end)  # noqa: S311 - repeatable, not secret

    threads = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        end.set()
        for thread in threads:
            thread.join(2 * _TIMEOUT_S)


def _send(client: RagClient, requests: Iterator[Due], draw: random.Random, tally: Tally, end: threading.Event) -> None:
    """What is due, when it is due, or as soon as it can."""
    began_s = time.perf_counter()
    for due in requests:
        if end.wait(max(0.0, began_s + due.at_s - time.perf_counter())):
            return
        if draw.random() < _BAD:
            _send_bad(client, draw, tally)
        else:
            sample = perform(client, due, began_s=began_s)
            tally.count(sample.operation, sample.code)


def _send_bad(client: RagClient, draw: random.Random, tally: Tally) -> None:
    try:
        draw.choice(bad_requests())(client)
    except BadRequestError:
        tally.count("bad")
    except RagError as error:
        tally.count("bad", error.code)
        tally.name(f"a bad request got {error}")
    else:
        tally.count("bad", "answered")


class ChangingCopy:
    """A copy of an index that changes: documents are added and, a few changes later, deleted again; segments are merged."""

    def __init__(self, index: Path, folder: Path, encoder: Encoder, *, seed: int) -> None:
        self.directory: Final = folder / "index"
        self._encoder, self._seed, self._number = encoder, seed, 0
        shutil.copytree(index, self.directory)

    def change(self, tally: Tally) -> None:
        """One change: an addition, what was added some changes ago deleted, and merging as far as it pays."""
        self._number += 1
        add_documents(self._documents(self._number), [self._encoder], self.directory)
        old = self._number - _LIVE_CHANGES
        if old > 0:
            delete_documents(self.directory, [document.id for document in self._documents(old)])
            tally.changes["delete"] += 1
        while merge(self.directory) is not None:
            tally.changes["merge"] += 1
        collect_garbage(self.directory, keep=_KEPT_VERSIONS)
        tally.changes["add"] += 1

    def _documents(self, number: int) -> list[DocumentPassages]:
        draw = random.Random(f"{self._seed} {number}")  # noqa: S311 - repeatable, not secret
        made = []
        for place in range(_DOCUMENTS):
            text = f"Change {number} brought item {place}: " + " ".join(f"w{draw.randrange(5000)}" for _ in range(60))
            uri = f"soak/{number}/{place}.txt"
            passage = Passage(text=text, title=f"Item {place}", uri=uri, start=0, end=len(text))
            made.append(DocumentPassages(id=uri, tenant=None, passages=(passage,)))
        return made
