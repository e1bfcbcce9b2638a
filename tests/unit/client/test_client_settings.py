"""The client as an object: closing, sharing, limits, settings."""

import threading
from typing import Any

import pytest
from client_double import ANSWER, ScriptedTriton, Talk, Value, delta, embedding, final, slow_answer

from tritonrag_client import AsyncRagClient, BadRequestError, ChannelOptions, RagClient, RequestCancelledError


@pytest.mark.parametrize("method", ["ask", "stream", "search", "embed", "cancel"])
def test_a_closed_client_says_so(url: str, triton: ScriptedTriton, method: str) -> None:
    triton.script = [ANSWER]
    client = RagClient(url)
    client.close()
    with pytest.raises(BadRequestError, match="this client is closed"):
        getattr(client, method)("x")


async def test_a_closed_async_client_says_so(url: str) -> None:
    client = AsyncRagClient(url)
    await client.close()
    with pytest.raises(BadRequestError, match="this client is closed"):
        await client.embed("x")


def test_closing_the_client_ends_requests_that_run(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    client = RagClient(url)
    stream = client.stream("Who?")
    next(stream)
    closer = threading.Thread(target=client.close)
    closer.start()
    with pytest.raises(RequestCancelledError):
        next(stream)
    closer.join()


def test_threads_share_a_client(url: str, triton: ScriptedTriton) -> None:
    triton.script = [lambda request, _context: iter([final(delta(request.id, first=True, finish="stop"))])]
    texts: dict[str, str] = {}
    with RagClient(url) as client:

        def ask(name: str) -> None:
            texts[name] = client.ask("Who?", request_id=name).text

        threads = [threading.Thread(target=ask, args=(f"r{number}",)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == {f"r{number}": f"r{number}" for number in range(16)}


def test_a_message_over_the_limit_names_the_limit(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [embedding]
    with pytest.raises(BadRequestError, match="larger than max"):
        talk(url, "embed", "x" * 2000, client={"channel": ChannelOptions(max_message_bytes=1000)})


@pytest.mark.parametrize("bad", ["", "http://127.0.0.1:8001", "https://host:8001", None, 8001])
@pytest.mark.parametrize("kind", [RagClient, AsyncRagClient])
def test_a_url_that_is_no_address_is_refused(kind: Value, bad: Value) -> None:
    with pytest.raises(BadRequestError, match="host:port"):
        kind(bad)


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [({"model": "retriever"}, "model is 'retriever'"), ({"timeouts": 3}, "timeouts is 3"), ({"retry": 3}, "retry")],
)
def test_settings_of_the_wrong_kind_are_refused_by_name(settings: dict[str, Any], culprit: str) -> None:
    with pytest.raises(BadRequestError, match=culprit):
        RagClient("127.0.0.1:1", **settings)


@pytest.mark.parametrize("kind", [RagClient, AsyncRagClient])
def test_tls_of_the_wrong_kind_is_refused_by_name(kind: Value) -> None:
    with pytest.raises(BadRequestError, match=r"tls is 'ca\.pem'; give a TlsOptions"):
        kind("127.0.0.1:1", tls="ca.pem")


@pytest.mark.parametrize(
    ("method", "args"),
    [("ask", "x"), ("stream", "x"), ("search", "x"), ("embed", "x"), ("cancel", "x"), ("health", "")],
)
async def test_an_async_client_that_is_closed_before_its_first_call_opens_no_channel(
    url: str, method: str, args: str
) -> None:
    client = AsyncRagClient(url)
    await client.close()
    with pytest.raises(BadRequestError, match="this client is closed"):
        await getattr(client, method)(*args)
    assert client._channels == []
