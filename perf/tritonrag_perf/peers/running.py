"""A run: in each round each contender in its turn is started, left to come to rest, asked, and stopped."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from tritonrag_client.errors import InternalError, RagError
from tritonrag_perf.peers.checking import Oracle
from tritonrag_perf.peers.contenders import Contender, Endpoint, Running
from tritonrag_perf.peers.load_process import Job, Window
from tritonrag_perf.peers.record import Failure, Quality, Sample, Start
from tritonrag_perf.peers.rest import wait_for_rest
from tritonrag_perf.process_use import memory_bytes

_REST_S: Final = 120.0
_BEYOND_S: Final = 180.0  # for a load process to start, and for its last answers
_LAST: Final = 400

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to ask: `questions`, `k` passages each, by so many clients for so long, in so many rounds."""

    questions: tuple[str, ...]
    k: int
    clients: tuple[int, ...]
    rounds: int
    warm_up_s: float
    seconds: float


@dataclass(slots=True, kw_only=True)
class Results:
    """What has come of a run so far."""

    samples: list[Sample] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    qualities: list[Quality] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def run(contenders: Sequence[Contender], oracle: Oracle, plan: Plan, progress: Progress) -> Results:
    """All rounds, every other one backwards. A contender that fails is recorded, and the others go on."""
    results = Results()
    for round_ in range(plan.rounds):
        for contender in contenders if round_ % 2 == 0 else reversed(contenders):
            progress(f"round {round_ + 1} of {plan.rounds}: {contender.name}")
            try:
                _turn(contender, oracle, plan, round_, results)
            except RagError as error:
                progress(f"{contender.name}: {error}")
                what = str(error).splitlines()[0]  # and not its log, which tells of the machine
                results.failures.append(Failure(name=contender.name, round=round_, reason=what))
    return results


def _turn(contender: Contender, oracle: Oracle, plan: Plan, round_: int, results: Results) -> None:
    with contender.running() as running:
        if not wait_for_rest(running.pids, timeout_s=_REST_S):
            raise InternalError(
                f"{contender.name} still takes CPU time {_REST_S:g} s after its start, without a question"
            )
        for endpoint in running.endpoints:
            if not any(one.endpoint == endpoint.name for one in results.qualities):
                checked = oracle.check(endpoint.protocol, endpoint.address, contender.precision)
                results.qualities.append(
                    Quality(endpoint=endpoint.name, precision=contender.precision, checked=checked)
                )
        for clients in plan.clients if round_ % 2 == 0 else reversed(plan.clients):
            for endpoint in running.endpoints:
                results.samples.append(_sample(running, endpoint, plan, clients, round_))
        for endpoint in running.endpoints:
            results.starts.append(
                Start(
                    endpoint=endpoint.name,
                    round=round_,
                    started_s=running.started_s,
                    memory_bytes=memory_bytes(running.pids()),
                )
            )


def _sample(running: Running, endpoint: Endpoint, plan: Plan, clients: int, round_: int) -> Sample:
    job = Job(
        protocol=endpoint.protocol,
        address=endpoint.address,
        questions=plan.questions,
        k=plan.k,
        clients=clients,
        warm_up_s=plan.warm_up_s,
        seconds=plan.seconds,
        pids=tuple(running.pids()),
    )
    window = drive(job)
    if not window.latencies_ms:
        raise InternalError(
            f"{endpoint.name} gave no answer to {clients} clients in {plan.seconds:g} s; give more time"
        )
    return Sample.of(window, endpoint=endpoint.name, clients=clients, round_=round_)


def drive(job: Job) -> Window:
    """Let a process of its own do a job. Raises InternalError with the end of what it said where it fails."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tritonrag_perf.peers.load_process"],
            input=json.dumps(asdict(job)),
            capture_output=True,
            text=True,
            timeout=job.warm_up_s + job.seconds + _BEYOND_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise InternalError(f"the load on {job.address} broke off: {error.stderr[-_LAST:]}") from error
    except subprocess.TimeoutExpired as error:
        raise InternalError(f"the load on {job.address} does not end") from error
    given = json.loads(done.stdout)
    return Window(**{**given, "latencies_ms": tuple(given["latencies_ms"])})
