"""More requests than a server can answer: what becomes of those that it takes, and how fast the others are told.

    python -m tritonrag_perf.overload --index DIR --output DIR [--factors 1.5 3 10] [--seconds 60] [--rounds 5]

starts a server, measures in each round what it answers at most (closed loop), and then sends requests to `retrieve` at random times
(Poisson) at each multiple of that, whatever is answered, from one asyncio process. A slow server (`--precision fp32 --instances 1`)
leaves the client a core of its own. Every answer is compared with what the same question got when nothing else ran.
Writes NAME.json and NAME.md after every round.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import EmbedderSettings, RetrieverSettings, Settings
from tritonrag_client.contract import INDEX_VERSION, NUM_PASSAGES, PASSAGE_IDS, RETRIEVE, TEXT_INPUT
from tritonrag_client.errors import OverloadedError, RagError, parse_error
from tritonrag_perf.command_line import told
from tritonrag_perf.corpus import QuestionSet, questions_of_index
from tritonrag_perf.machine import Machine
from tritonrag_perf.overload_report import Overload, Round, Sample, Times, write_overload

_CHANNELS: Final = 4
_DEADLINE_S: Final = 30.0
_LATE_S: Final = 0.01
_TAKEN_S: Final = 5.0  # a measurement of what the server answers at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure: `factors` of the most that is answered, each for `seconds`, in `rounds`; `clients` of the closed loop."""

    factors: tuple[float, ...]
    seconds: float
    rounds: int
    clients: int
    seed: int


@dataclass(slots=True)
class _Outcomes:
    """What became of requests, in ms from when each was sent."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    wrong: int = 0
    failed: list[str] = field(default_factory=list)
    late: int = 0


class _Client:
    """Asks `retrieve` for passages and knows what is right."""

    def __init__(self, url: str, questions: Sequence[str]) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(url, options=options) for _ in range(_CHANNELS)]
        self._stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in self._channels]
        self._requests = [_request(question) for question in questions]
        self._right: list[bytes] = []

    async def learn(self) -> None:
        """One after the other, while nothing else runs."""
        self._right = [_ids(await self._stubs[0].ModelInfer(request)) for request in self._requests]

    async def most_per_s(self, clients: int, seconds: float) -> tuple[float, Times]:
        """Answers a second, and their times, with so many clients that wait for theirs."""
        outcomes, end = _Outcomes(), time.perf_counter() + seconds

        async def ask_on(number: int) -> None:
            while time.perf_counter() < end:
                await self._ask(number, outcomes)
                number += clients

        begin = time.perf_counter()
        await asyncio.gather(*(ask_on(number) for number in range(clients)))
        return len(outcomes.answered) / (time.perf_counter() - begin), Times.of(outcomes.answered)

    async def flood(self, rate_per_s: float, seconds: float, draw: random.Random) -> _Outcomes:
        """Send at that rate, whatever comes back; all have ended when this returns."""
        outcomes, tasks = _Outcomes(), set[asyncio.Task[None]]()
        begin, at_s, number = time.perf_counter(), 0.0, 0
        while (at_s := at_s + draw.expovariate(rate_per_s)) < seconds:
            if (pause_s := begin + at_s - time.perf_counter()) > 0:
                await asyncio.sleep(pause_s)
            elif number % 64 == 0:
                await asyncio.sleep(0)  # behind: answers must be read all the same
            outcomes.late += pause_s < -_LATE_S
            tasks.add(task := asyncio.create_task(self._ask(number, outcomes)))
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)
        return outcomes

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def _ask(self, number: int, outcomes: _Outcomes) -> None:
        which = number % len(self._requests)
        begin = time.perf_counter()
        try:
            answer = await self._stubs[number % _CHANNELS].ModelInfer(self._requests[which], timeout=_DEADLINE_S)
        except grpc.RpcError as error:
            took_ms = 1e3 * (time.perf_counter() - begin)
            if isinstance(parse_error(error.details() or ""), OverloadedError):
                outcomes.refused.append(took_ms)
            else:
                outcomes.failed.append(f"{error.code().name}: {error.details()}"[:200])
            return
        outcomes.answered.append(1e3 * (time.perf_counter() - begin))
        outcomes.wrong += _ids(answer) != self._right[which]


def _request(question: str) -> Any:  # noqa: ANN401 - protobuf's classes have no types
    text = question.encode()
    message = service_pb2.ModelInferRequest(model_name=RETRIEVE)
    message.inputs.add(name=TEXT_INPUT, datatype="BYTES", shape=[1, 1])
    message.inputs.add(name=NUM_PASSAGES, datatype="INT32", shape=[1, 1])
    message.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
    message.raw_input_contents.append(np.array([10], "<i4").tobytes())
    for name in (PASSAGE_IDS, INDEX_VERSION):
        message.outputs.add(name=name)
    return message


def _ids(answer: Any) -> bytes:  # noqa: ANN401
    """The passages' ids, in their order."""
    outputs = {output.name: raw for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    return bytes(outputs[PASSAGE_IDS])


def measure(plan: Plan, settings: Settings, questions: QuestionSet, command: str) -> Iterator[Overload]:
    """The record after each round. Raises what starting a server does."""
    rounds: list[Round] = []
    with TritonServer() as server:
        running = server.start(ServeOptions(settings=settings))
        for number in range(plan.rounds):
            rounds.append(asyncio.run(_round(plan, running.grpc_url, questions.texts, number)))
            yield Overload(
                date=datetime.now(UTC).date().isoformat(),
                machine=Machine.this(),
                command=command,
                questions=str(questions),
                waiting=settings.limits.waiting,
                wait_s=settings.limits.wait_s,
                precision=settings.embedder.precision,
                instances=settings.embedder.instances,
                seconds=plan.seconds,
                rounds=tuple(rounds),
            )


async def _round(plan: Plan, url: str, questions: Sequence[str], number: int) -> Round:
    client = _Client(url, questions)
    await client.learn()
    most_per_s, closed = await client.most_per_s(plan.clients, _TAKEN_S)
    _tell(
        f"round {number + 1} of {plan.rounds}: {most_per_s:.0f}/s with {plan.clients} clients, p99 {closed.p99_ms:.0f} ms"
    )
    draw = random.Random(plan.seed + number)  # noqa: S311 - arrival times
    samples = []
    for factor in plan.factors:
        outcomes = await client.flood(factor * most_per_s, plan.seconds, draw)
        samples.append(_sample(factor, outcomes, plan.seconds))
        _tell(f"  {samples[-1]}")
    await client.close()
    return Round(most_per_s=most_per_s, clients=plan.clients, closed=closed, samples=tuple(samples))


def _sample(factor: float, outcomes: _Outcomes, seconds: float) -> Sample:
    sent = len(outcomes.answered) + len(outcomes.refused) + len(outcomes.failed)
    return Sample(
        factor=factor,
        sent_per_s=sent / seconds,
        answered_per_s=len(outcomes.answered) / seconds,
        refused_per_s=len(outcomes.refused) / seconds,
        answered=Times.of(outcomes.answered),
        refused=Times.of(outcomes.refused),
        wrong=outcomes.wrong,
        failed=len(outcomes.failed),
        failures=tuple(sorted(set(outcomes.failed))[:5]),
        late=outcomes.late / max(sent, 1),
    )


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the record. Exits with 1 where something is wrong; what was measured until then is written."""
    argv = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(argv)
    plan = Plan(
        factors=tuple(options.factors),
        seconds=options.seconds,
        rounds=options.rounds,
        clients=options.clients,
        seed=options.seed,
    )
    settings = Settings(
        index=options.index,
        embedder=EmbedderSettings(model=options.embedder, precision=options.precision, instances=options.instances),
        retriever=RetrieverSettings(cache_bytes=0),
    )
    paths: list[Path] = []
    try:
        questions = questions_of_index(options.index, count=options.count, seed=options.seed)
        for record in measure(plan, settings, questions, told("tritonrag_perf.overload", argv)):
            paths = write_overload(record, options.output, options.name)
    except RagError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)  # noqa: T201 - a command's result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.overload", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/demo-index"))
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--factors", type=float, nargs="+", default=[1.5, 3, 10], help="of what is answered at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each factor")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--clients", type=int, default=64, help="of the closed loop that finds what is answered at most"
    )
    parser.add_argument("--precision", choices=("int8", "fp32"), default="fp32")
    parser.add_argument("--instances", type=int, default=1, help="processes that embed and search")
    parser.add_argument("--count", type=int, default=200, help="questions, drawn from the index")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="overload")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    return parser


if __name__ == "__main__":
    main()
