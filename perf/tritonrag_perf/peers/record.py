"""What was measured side by side: every sample, and medians and ranges over the rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tritonrag_perf.machine import Machine
from tritonrag_perf.peers.checking import Checked
from tritonrag_perf.peers.load_process import Window
from tritonrag_perf.spread import Spread

MOST_LOST: Final = 0.002  # recall that a rival of the same kind may have less before the comparison is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One endpoint under one load in one round. CPU times are the server's, milliseconds a question; the client's are cores."""

    endpoint: str
    clients: int
    round: int
    questions_per_s: float
    p50_ms: float
    p99_ms: float
    answers: int
    server_cpu_ms: float
    client_cores: float

    @classmethod
    def of(cls, window: Window, *, endpoint: str, clients: int, round_: int) -> "Sample":
        """Sum up a window with at least one answer in it."""
        answers = len(window.latencies_ms)
        p50, p99 = np.percentile(window.latencies_ms, [50, 99])
        return cls(
            endpoint=endpoint,
            clients=clients,
            round=round_,
            questions_per_s=answers / window.seconds,
            p50_ms=float(p50),
            p99_ms=float(p99),
            answers=answers,
            server_cpu_ms=1e3 * window.server_cpu_s / answers,
            client_cores=window.client_cpu_s / window.seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of a server: until its first answer, and its memory after the loads (what processes share counted once)."""

    endpoint: str
    round: int
    started_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What an endpoint's answers are, and the precision they were held to."""

    endpoint: str
    precision: str
    checked: Checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A contender that could not be measured in a round, and why."""

    name: str
    round: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """A run. `passages` and `kind` say what the peers searched."""

    date: str
    machine: Machine
    command: str
    questions: str
    passages: int
    kind: str
    k: int
    samples: tuple[Sample, ...]
    starts: tuple[Start, ...]
    qualities: tuple[Quality, ...]
    failures: tuple[Failure, ...] = ()

    def endpoints(self) -> list[str]:
        """Those with samples, in the order in which they were given."""
        return list(dict.fromkeys(sample.endpoint for sample in sorted(self.samples, key=lambda one: one.round)))

    def clients(self) -> list[int]:
        """Numbers of clients, fewest first."""
        return sorted({sample.clients for sample in self.samples})

    def spread(self, endpoint: str, clients: int, figure: Callable[[Sample], float]) -> Spread | None:
        """One figure over the rounds; None where there is none."""
        values = [figure(one) for one in self.samples if (one.endpoint, one.clients) == (endpoint, clients)]
        return Spread.of(values) if values else None

    def ratio(self, ours: str, peer: str, clients: int) -> Spread | None:
        """Our questions/s over a peer's in the same round."""
        rates = {(one.endpoint, one.round): one.questions_per_s for one in self.samples if one.clients == clients}
        rounds = {round_ for _, round_ in rates}
        values = [rates[ours, r] / rates[peer, r] for r in rounds if (ours, r) in rates and (peer, r) in rates]
        return Spread.of(values) if values else None

    def quality(self, endpoint: str) -> Quality | None:
        """What its answers are."""
        return next((one for one in self.qualities if one.endpoint == endpoint), None)

    def start(self, endpoint: str, figure: Callable[[Start], float]) -> Spread | None:
        """One figure of its starts."""
        values = [figure(one) for one in self.starts if one.endpoint == endpoint]
        return Spread.of(values) if values else None

    def unequal(self, endpoints: Sequence[str], ours: str) -> list[str]:
        """Of those, the ones with our precision whose recall is further than `MOST_LOST` from ours."""
        mine = self.quality(ours)
        if mine is None:
            return []
        return [
            one.endpoint
            for one in self.qualities
            if one.endpoint in endpoints
            and one.precision == mine.precision
            and abs(one.checked.recall_at_k - mine.checked.recall_at_k) > MOST_LOST
        ]
