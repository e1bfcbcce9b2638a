"""Mixed traffic of searches and answers as an open loop, for Locust.

`python -m tritonrag_perf.goodput` runs it step by step. By hand:

    locust -f perf/locust/mixed.py --headless -u 1 --url HOST:GRPC_PORT --questions FILE --rate 20 --seconds 30

Locust's own users are a closed loop: each sends its next request when its last is answered, and so a slow server is asked less.
Here a user only keeps the timetable and lets a greenlet of its own send each request when it is due, answered or not. Of several
users (-u) each has its share of the rate. Without --seconds it goes on until it is stopped.
"""  # noqa: INP001 - Locust starts it by its path

import argparse
import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

from locust import User, events, task  # first of all: it patches the standard library for gevent

# isort: split
import gevent  # type: ignore[import-untyped]
import grpc.experimental.gevent as grpc_gevent
from gevent.pool import Pool  # type: ignore[import-untyped]

from tritonrag_client import RagClient, RetryPolicy, Timeouts
from tritonrag_perf.goodput_traffic import (
    OPERATIONS,
    Due,
    Mix,
    Sample,
    not_sent,
    perform,
    schedule,
    write_samples,
)
from tritonrag_perf.questions import read_questions

grpc_gevent.init_gevent()


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the scenario, beside Locust's own."""
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server's gRPC address")
    parser.add_argument("--questions", default="", help="text file with a question a line")
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second, of all users together")
    parser.add_argument("--seconds", type=float, default=None, help="end after so long")
    parser.add_argument("--mix", default=str(Mix()), help=f"weights of {', '.join(OPERATIONS)}")
    parser.add_argument("--answer-model", choices=("generator", "rag"), default="rag")
    parser.add_argument("--timeout-s", type=float, default=10.0, help="when a request is given up")
    parser.add_argument(
        "--most-in-flight", type=int, default=512, help="unanswered requests of a user; more are not sent"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", default="", help="file for what became of each request")


class Timetable(User):
    """Sends what is due when it is due, tells Locust what became of it, and with --seconds ends the run at its end."""

    samples: ClassVar[list[Sample]] = []
    users: ClassVar[int] = 0
    ended: ClassVar[int] = 0

    def on_start(self) -> None:
        """Connect. A request that fails is not tried again: a retry would be traffic that is in no timetable."""
        options = self.environment.parsed_options
        self.number = Timetable.users
        Timetable.users += 1
        self.client = RagClient(
            options.url,
            model=options.answer_model,
            timeouts=Timeouts(connect_s=min(5.0, options.timeout_s), total_s=options.timeout_s),
            retry=RetryPolicy(attempts=1),
        )

    def on_stop(self) -> None:
        """Disconnect."""
        self.client.close()

    @task
    def keep(self) -> None:
        """The whole timetable of this user."""
        options = self.environment.parsed_options
        pool = Pool(options.most_in_flight)
        began_s = time.perf_counter()
        for due in self._due(options):
            gevent.sleep(max(0.0, began_s + due.at_s - time.perf_counter()))
            if pool.full():
                self._record(not_sent(due, began_s=began_s))
            else:
                pool.spawn(self._send, due, began_s)
        pool.join()
        Timetable.ended += 1
        if Timetable.ended == (options.num_users or 1):
            self._finish(options)
        gevent.sleep(options.timeout_s)  # the others' last answers; Locust would begin the timetable anew

    def _due(self, options: Any) -> Iterator[Due]:  # noqa: ANN401 - argparse's
        users = options.num_users or 1
        questions = read_questions(Path(options.questions))
        everything = schedule(
            Mix.parse(options.mix), questions, rate_per_s=options.rate / users, seed=options.seed + self.number
        )
        return takewhile(lambda due: options.seconds is None or due.at_s < options.seconds, everything)

    def _send(self, due: Due, began_s: float) -> None:
        self._record(perform(self.client, due, began_s=began_s))

    def _record(self, sample: Sample) -> None:
        self.samples.append(sample)
        fire = self.environment.events.request.fire
        error = RuntimeError(sample.code) if sample.code else None
        fire(
            request_type="rag",
            name=sample.operation,
            response_time=sample.latency_ms,
            response_length=0,
            exception=error,
            context={},
        )
        if sample.first_ms is not None:
            fire(
                request_type="first token",
                name=sample.operation,
                response_time=sample.first_ms,
                response_length=0,
                exception=None,
                context={},
            )

    def _finish(self, options: Any) -> None:  # noqa: ANN401 - argparse's
        if options.samples:
            write_samples(Path(options.samples), self.samples)
        self.environment.runner.quit()
