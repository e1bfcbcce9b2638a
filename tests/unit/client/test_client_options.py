"""Options refuse nonsense when they are made, and pauses keep their bounds."""

import math
from pathlib import Path

import pytest
from client_double import Value
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_client import BadRequestError, ChannelOptions, RetryPolicy, Timeouts, TlsOptions
from tritonrag_client._channel import channel_arguments

NO_DURATION = [0, -1, math.nan, math.inf, "5", None, True]


@pytest.mark.parametrize("value", NO_DURATION)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Timeouts, "connect_s"),
        (Timeouts, "total_s"),
        (RetryPolicy, "base_s"),
        (RetryPolicy, "max_s"),
        (ChannelOptions, "keepalive_time_s"),
        (ChannelOptions, "keepalive_timeout_s"),
    ],
)
def test_what_is_no_duration_is_refused_with_its_name_and_value(kind: Value, name: str, value: Value) -> None:
    with pytest.raises(BadRequestError, match=f"{name} is {value!r}"):
        kind(**{name: value})


def test_connecting_may_not_take_longer_than_everything() -> None:
    with pytest.raises(BadRequestError, match=r"connect_s \(3\) is longer than total_s \(2\)"):
        Timeouts(connect_s=3, total_s=2)
    with pytest.raises(BadRequestError, match="give both"):
        Timeouts(total_s=1)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"attempts": 0}, "attempts is 0"),
        ({"attempts": 1.5}, "attempts is 1.5"),
        ({"base_s": 3, "max_s": 2}, r"base_s \(3\) is longer than max_s \(2\)"),
        ({"jitter": 1.1}, "jitter is 1.1"),
        ({"jitter": -0.1}, "jitter is -0.1"),
        ({"jitter": math.nan}, "jitter is nan"),
    ],
)
def test_a_nonsensical_retry_policy_is_refused(options: dict[str, Value], culprit: str) -> None:
    with pytest.raises(BadRequestError, match=culprit):
        RetryPolicy(**options)


@pytest.mark.parametrize("size", [0, -1, 2**31, 1.5])
def test_a_message_size_that_grpc_can_not_take_is_refused(size: Value) -> None:
    with pytest.raises(BadRequestError, match="max_message_bytes"):
        ChannelOptions(max_message_bytes=size)


@pytest.mark.parametrize("given_one", ["private_key", "certificate_chain"])
def test_half_a_key_pair_is_refused_by_name(given_one: str) -> None:
    missing = {"private_key": "certificate_chain", "certificate_chain": "private_key"}[given_one]
    with pytest.raises(BadRequestError, match=f"{given_one} is given without {missing}"):
        TlsOptions(**{given_one: Path("x.pem")})


def test_channel_options_reach_grpc_in_its_units() -> None:
    arguments = dict(
        channel_arguments(ChannelOptions(max_message_bytes=7, keepalive_time_s=1.5, keepalive_timeout_s=0.25))
    )
    assert arguments["grpc.max_receive_message_length"] == arguments["grpc.max_send_message_length"] == 7
    assert (arguments["grpc.keepalive_time_ms"], arguments["grpc.keepalive_timeout_ms"]) == (1500, 250)
    assert arguments["grpc.enable_http_proxy"] == 0


@given(
    attempts=st.integers(1, 200),
    base_s=st.floats(0.001, 10),
    jitter=st.floats(0, 1),
    luck=st.floats(0, 1, exclude_max=True),
    left_s=st.floats(-1, 1e6),
)
def test_every_pause_keeps_within_jitter_limit_and_deadline(
    attempts: int, base_s: float, jitter: float, luck: float, left_s: float
) -> None:
    policy = RetryPolicy(attempts=attempts, base_s=base_s, max_s=10, jitter=jitter)
    pauses_s: list[float] = []
    for pause_s in policy.pauses_s(lambda: luck, lambda: left_s - sum(pauses_s)):
        longest_s = min(10, base_s * 2.0 ** len(pauses_s))
        assert longest_s * (1 - jitter) - 1e-9 <= pause_s <= longest_s
        pauses_s.append(pause_s)
    assert len(pauses_s) <= attempts - 1
    assert sum(pauses_s) <= max(left_s, 0)


def test_one_attempt_means_no_pause() -> None:
    assert list(RetryPolicy(attempts=1).pauses_s(lambda: 0.5, lambda: 1e9)) == []


@pytest.mark.parametrize("name", ["root_certificates", "private_key", "certificate_chain"])
def test_a_file_that_is_no_path_is_refused_by_name(name: str) -> None:
    files: dict[str, Value] = {"private_key": Path("key.pem"), "certificate_chain": Path("chain.pem"), name: "x.pem"}
    with pytest.raises(BadRequestError, match=rf"{name} is 'x\.pem'; give a pathlib\.Path"):
        TlsOptions(**files)
