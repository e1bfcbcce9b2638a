"""Thousands of requests that are wrong in some way: each is answered or refused in time, tells nothing, and changes nothing.

FUZZ_REQUESTS=100000 pytest tests/faults/test_fuzz.py      more of them than the 10,000 that are always the same
"""

import os
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import grpc
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.faults.fuzz_requests import Sent, method, requests
from tests.faults.hostile import DEADLINE_S, Known, all_live, leak_of, processes, require_sound
from tests.server.wire import Failure, Wire, outputs
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer
from tritonrag_client.errors import parse_error

REQUESTS: Final = int(os.environ.get("FUZZ_REQUESTS", "10000"))
AT_ONCE: Final = 10
ASK_EVERY: Final = 25  # batches

Outcome = dict[str, bytes] | Failure
Pending = Callable[[], list[Outcome]]


@pytest.mark.timeout(1800)
def test_every_request_is_answered_or_refused_in_time_and_nothing_else_changes(
    server: RunningServer, wire: Wire
) -> None:
    known, before, texts = Known.ask(wire), processes(server), Counter[str]()
    sent = 0

    @hypothesis_settings(
        max_examples=max(1, REQUESTS // AT_ONCE),
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # a server that one request has killed fails every smaller one too
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(requests(), min_size=AT_ONCE, max_size=AT_ONCE))
    def fuzz(batch: list[Sent]) -> None:
        nonlocal sent
        for one, pending in [(one, send(wire, one)) for one in batch]:
            judge(one, pending(), texts)
        sent += len(batch)
        assert all_live(before), f"a process of the server ended: {batch}"
        if sent % (ASK_EVERY * AT_ONCE) == 0:
            assert Known.ask(wire) == known

    fuzz()
    assert Known.ask(wire) == known
    assert processes(server) == before
    assert wait_until(lambda: wire.metric("tritonrag_generations_running") == 0)
    for text, count in texts.most_common():
        print(f"{count:6} {text}")  # noqa: T201 - Triton's own words, for those who run it with -s


def send(wire: Wire, one: Sent) -> Pending:
    """Begin a request; what is returned waits for its end."""
    if one.raw is not None:
        call = wire._channel.unary_unary(method("ModelInfer")).future(one.raw, timeout=DEADLINE_S)
        return lambda: [_unary(call, lambda _: {})]
    if not one.streamed:
        call = wire.stub.ModelInfer.future(one.messages[0], timeout=DEADLINE_S)
        return lambda: [_unary(call, outputs)]
    stream = wire.stub.ModelStreamInfer(iter(one.messages), timeout=DEADLINE_S)
    return lambda: _streamed(stream)


def _unary(call: Any, read: Callable[[Any], dict[str, bytes]]) -> Outcome:
    try:
        return read(call.result())
    except grpc.RpcError as error:
        return Failure(error.code().name, error.details() or "")


def _streamed(stream: Any) -> list[Outcome]:
    got: list[Outcome] = []
    try:
        got.extend(  # what came before an error stays
            Failure("", one.error_message) if one.error_message else outputs(one.infer_response) for one in stream
        )
    except grpc.RpcError as error:
        got.append(Failure(error.code().name, error.details() or ""))
    return got


def judge(one: Sent, got: list[Outcome], texts: Counter[str]) -> None:
    """Hold what came to what may come."""
    assert len(got) >= max(1, len(one.messages)), f"{len(got)} outcomes of {one}"
    for outcome in got:
        if not isinstance(outcome, Failure):
            require_sound(outcome)
            continue
        assert outcome.status != "DEADLINE_EXCEEDED", f"no end within {DEADLINE_S:g} s: {one}"
        error = parse_error(outcome.message)
        assert error is None or error.code != "internal", f"{outcome} to {one}"
        assert not leak_of(outcome), f"{outcome.message!r} tells {leak_of(outcome)!r} to {one}"
        if error is None:
            texts[_pattern(outcome)] += 1


def _pattern(failure: Failure) -> str:
    """An error of Triton's own without what is the request's."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]", "*", failure.message)
    return f"{failure.status or 'stream'}: {re.sub(r'-?[0-9]+', 'N', text)[:160]}"
