"""The public names are a promise; and who needs a name only does not pay for gRPC."""

import dataclasses
import inspect
import subprocess
import sys

import pytest

import tritonrag_client
from tritonrag_client import AsyncRagClient, ChannelOptions, RagClient, RetryPolicy, Timeouts, TlsOptions

PUBLIC = [
    "Answer",
    "AnswerDelta",
    "AnswerOptions",
    "AnswerStream",
    "AsyncAnswerStream",
    "AsyncRagClient",
    "BadRequestError",
    "ChannelOptions",
    "DeadlineError",
    "DeniedError",
    "Health",
    "InternalError",
    "NotFoundError",
    "OverloadedError",
    "Passage",
    "RagClient",
    "RagError",
    "RequestCancelledError",
    "RetryPolicy",
    "ScoredPassage",
    "SearchOptions",
    "SearchResult",
    "Source",
    "Timeouts",
    "TlsOptions",
    "Turn",
    "UnavailableError",
]


def test_the_public_names_are_these() -> None:
    assert sorted(tritonrag_client.__all__) == dir(tritonrag_client) == PUBLIC
    for name in PUBLIC:
        assert getattr(tritonrag_client, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = tritonrag_client.Nothing


@pytest.mark.parametrize("method", ["__init__", "ask", "stream", "search", "embed", "health", "cancel", "close"])
def test_both_clients_take_the_same_arguments(method: str) -> None:
    threads, loop = (inspect.signature(getattr(client, method)) for client in (RagClient, AsyncRagClient))
    assert list(threads.parameters) == list(loop.parameters)
    for name in threads.parameters.keys() - {"_sleep"}:
        assert threads.parameters[name] == loop.parameters[name]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import tritonrag_client.contract, tritonrag_client.errors", ("grpc", "numpy", "tritonclient", "google")),
        (
            "from tritonrag_client import RagError, Passage, Timeouts, Answer",
            ("grpc", "numpy", "tritonclient", "google"),
        ),
        (
            "from tritonrag_client import RagClient, AsyncRagClient",
            ("gevent", "aiohttp", "requests", "pandas", "torch"),
        ),
    ],
)
def test_a_name_loads_no_more_than_it_needs(statement: str, absent: tuple[str, ...]) -> None:
    program = f"import sys; {statement}; print([name for name in {absent!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (Timeouts, ["connect_s", "total_s"]),
        (RetryPolicy, ["attempts", "base_s", "max_s", "jitter", "share", "spare"]),
        (TlsOptions, ["root_certificates", "private_key", "certificate_chain"]),
        (ChannelOptions, ["max_message_bytes", "keepalive_time_s", "keepalive_timeout_s", "use_proxy"]),
    ],
)
def test_the_options_are_these(options: type, names: list[str]) -> None:
    assert [field.name for field in dataclasses.fields(options)] == names
