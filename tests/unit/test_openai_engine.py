"""The openai engine asks for what the request asks for, reads what the server writes, and keeps keys and tenants to itself."""

import asyncio
import json
import logging
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai_misbehaving_server import (
    DONE,
    KEY,
    PATIENCE_S,
    PROMPT,
    WHOLE,
    MisbehavingServer,
    answers,
    ask,
    chunk,
    engine_at,
    event,
    opened,
    served,
    stalls,
    streams,
    text_of,
    until,
)
from pydantic import SecretStr

from tritonrag_backends.generation.engine import Delta, Load, Message, Sampling, Usage
from tritonrag_backends.generation.openai.engine import open_openai
from tritonrag_backends.generation.openai.settings import OpenaiSettings
from tritonrag_client.errors import BadRequestError, NotFoundError, OverloadedError, UnavailableError

URL = "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": ""}, "TRITONRAG_OPENAI_URL is not set"),
        ({"url": "ftp://host/v1"}, "TRITONRAG_OPENAI_URL is 'ftp://host/v1'"),
        ({"url": "host:80/v1"}, "TRITONRAG_OPENAI_URL is 'host:80/v1'"),
        ({"url": "http://"}, "TRITONRAG_OPENAI_URL"),
        ({"url": "http://host:port/v1"}, "TRITONRAG_OPENAI_URL"),
        ({"url": "http://[::1/v1"}, "TRITONRAG_OPENAI_URL"),
        ({"url": "http://a b/v1"}, "TRITONRAG_OPENAI_URL"),
        ({"url": "http://host/v1?key=1"}, "TRITONRAG_OPENAI_URL"),
        ({"url": "http://host/v1/chat/completions"}, "up to /v1"),
        ({"url": URL, "model": " "}, "TRITONRAG_OPENAI_MODEL is not set"),
        ({"url": URL, "api_key": SecretStr("one\ntwo")}, "TRITONRAG_OPENAI_API_KEY"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_by_variable(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequestError, match=told.replace("[", r"\[")):
        open_openai(OpenaiSettings(**{"model": "tiny", **settings}), {})


@pytest.mark.parametrize("url", ["http://me:hush@host/v1", "me:hush@host", "ftp://me:hush@host"])
def test_credentials_in_the_address_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(BadRequestError, match="TRITONRAG_OPENAI_URL") as caught:
        open_openai(OpenaiSettings(url=url, model="tiny"), {})
    assert "hush" not in str(caught.value)


def test_a_tokenizer_that_is_not_there_or_none_is_refused_by_variable(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="TRITONRAG_OPENAI_TOKENIZER"):
        open_openai(OpenaiSettings(url=URL, model="tiny", tokenizer=tmp_path / "absent.json"), {})
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(BadRequestError, match="TRITONRAG_OPENAI_TOKENIZER"):
        open_openai(OpenaiSettings(url=URL, model="tiny", tokenizer=tmp_path / "broken.json"), {})


async def test_a_server_that_is_down_keeps_nobody_from_opening() -> None:
    async with opened(engine_at(URL, attempts=1)) as engine:
        with pytest.raises(UnavailableError, match="can't be reached"):
            await ask(engine)


def test_capabilities_change_with_server_and_model_alone() -> None:
    capabilities = engine_at(URL, context_tokens=1000).capabilities
    assert (capabilities.engine, capabilities.model, capabilities.context_tokens) == ("openai", "tiny", 1000)
    assert capabilities.lora_names is None
    assert capabilities.fingerprint == engine_at(f"{URL}/", attempts=1).capabilities.fingerprint
    assert capabilities.fingerprint != engine_at(URL, model="other").capabilities.fingerprint
    assert capabilities.fingerprint != engine_at("http://127.0.0.1:2/v1").capabilities.fingerprint


async def test_the_request_bears_what_was_asked_and_the_key() -> None:
    messages = (Message(role="system", content="Rules"), Message(role="user", content="What? é"))
    sampling = {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 2**64 - 1,
        "stop_words": ("a", "", "b", "c", "d", "e"),
    }
    async with MisbehavingServer(streams(*WHOLE)) as server, opened(engine_at(f"{server.url}/")) as engine:
        await ask(engine, replace(PROMPT, messages=messages), **sampling)
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert "cookie" not in request.headers
    assert request.fields == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Rules"}, {"role": "user", "content": "What? é"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 2**63 - 1,
        "stop": ["a", "b", "c", "d"],
    }


async def test_what_was_not_asked_is_not_sent() -> None:
    async with MisbehavingServer(streams(*WHOLE)) as server:
        engine = open_openai(OpenaiSettings(url=server.url, model="tiny"), {})
        async with opened(engine):
            await ask(engine, replace(PROMPT, tenant="acme"))
    (request,) = server.requests
    assert request.fields.keys() == {"model", "messages", "stream", "stream_options", "max_tokens", "temperature"}
    assert "authorization" not in request.headers


async def test_the_settings_key_goes_before_the_environments() -> None:
    async with served(streams(*WHOLE), api_key=SecretStr(" ours\n")) as (server, engine):
        await ask(engine)
    assert server.requests[0].headers["authorization"] == "Bearer ours"


async def test_an_adapter_is_asked_for_as_the_model() -> None:
    async with served(streams(*WHOLE)) as (server, engine):
        await ask(engine, lora_name="legal")
    assert server.requests[0].fields["model"] == "legal"


async def test_tenants_are_kept_apart_without_their_names() -> None:
    async with served(streams(*WHOLE), cache_salt=True) as (server, engine):
        for tenant in ("acme", "bolt", "acme", None):
            await ask(engine, replace(PROMPT, tenant=tenant))
    first, other, again, none = (request.fields.get("cache_salt") for request in server.requests)
    assert first == again != other
    assert none is None
    assert not any("acme" in json.dumps(request.fields) for request in server.requests)


async def test_deltas_come_as_they_are_written_and_the_last_tells_the_tokens() -> None:
    async with served(streams(*WHOLE)) as (_, engine):
        assert await ask(engine) == [
            Delta(text="Hello"),
            Delta(text=" world."),
            Delta(text="", finish_reason="stop", usage=Usage(prompt_tokens=5, completion_tokens=2)),
        ]
        assert engine.load == Load(running=0, waiting=0, slots=256)


@pytest.mark.parametrize(
    ("last", "finish_reason", "degraded"),
    [
        (chunk(finish_reason="length"), "length", ""),
        (chunk(finish_reason="eos_token"), "stop", ""),
        (chunk(finish_reason="content_filter"), "stop", "the language model's server filtered the answer"),
        (
            chunk(finish_reason="whim"),
            "stop",
            "the language model's server ended the answer for a reason of its own: 'whim'",
        ),
        (DONE, "stop", ""),
    ],
)
async def test_the_end_is_told_in_our_words(last: bytes, finish_reason: str, degraded: str) -> None:
    async with served(streams(chunk("Hello"), last)) as (_, engine):
        deltas = await ask(engine)
    assert text_of(deltas) == "Hello"
    assert (deltas[-1].finish_reason, deltas[-1].degraded) == (finish_reason, degraded)


async def test_what_is_no_text_of_the_answer_is_passed_over() -> None:
    noise = (
        b": ping\n\n",
        event('{"choices": []}'),
        event('{"choices": [{"delta": {"role": "assistant", "content": ""}}]}'),
        event('{"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": null}]}'),
        event('{"choices": [{"delta": {"content": null}}], "usage": null}'),
    )
    async with served(streams(*noise, *WHOLE)) as (_, engine):
        assert text_of(await ask(engine)) == "Hello world."


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": "5"}, {"prompt_tokens": -1, "completion_tokens": 2}, [], {"completion_tokens": None}]
)
async def test_a_count_of_tokens_that_makes_no_sense_costs_no_answer(usage: object) -> None:
    async with served(streams(chunk("Hello", finish_reason="stop", usage=usage), DONE)) as (_, engine):
        assert await ask(engine) == [Delta(text="Hello"), Delta(text="", finish_reason="stop")]


async def test_tokens_that_were_reused_are_told() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}
    async with served(streams(chunk("Hello", finish_reason="stop", usage=usage), DONE)) as (_, engine):
        assert (await ask(engine))[-1].usage == Usage(prompt_tokens=9, completion_tokens=1, cached_tokens=8)


async def test_a_stop_word_that_the_server_does_not_know_ends_answer_and_connection() -> None:
    async with served(streams(chunk("go on ST"), chunk("OP and on"), then=stalls)) as (server, engine):
        deltas = await ask(engine, stop_words=("1", "2", "3", "4", "STOP"))
        assert text_of(deltas) == "go on "
        assert deltas[-1].finish_reason == "stop"
        await asyncio.wait_for(server.requests[0].gone.wait(), PATIENCE_S)


async def test_what_only_looked_like_a_stop_word_is_not_lost_at_the_end() -> None:
    async with served(streams(chunk("go on ST"), chunk(finish_reason="length"), DONE)) as (_, engine):
        assert text_of(await ask(engine, stop_words=("STOP",))) == "go on ST"


async def test_a_server_that_does_not_stream_is_understood() -> None:
    whole = {
        "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    async with served(answers("200 OK", json.dumps(whole))) as (_, engine):
        assert await ask(engine) == [
            Delta(text="Hello"),
            Delta(text="", finish_reason="stop", usage=Usage(prompt_tokens=5, completion_tokens=2)),
        ]


async def test_one_connection_serves_one_answer_after_the_other() -> None:
    async with served(streams(*WHOLE)) as (server, engine):
        for _ in range(5):
            await ask(engine)
    assert {request.connection for request in server.requests} == {1}


async def test_leaving_closes_the_connection_at_once() -> None:
    async with served(streams(chunk("Hello"), then=stalls)) as (server, engine):
        async with aclosing(engine.generate(PROMPT, Sampling(max_tokens=20))) as deltas:
            assert await anext(deltas) == Delta(text="Hello")
            assert engine.load.running == 1
        await asyncio.wait_for(server.requests[0].gone.wait(), PATIENCE_S)
        assert engine.load.running == 0


async def test_leaving_before_the_first_token_closes_the_connection_too() -> None:
    async with served(stalls) as (server, engine):
        task = asyncio.ensure_future(ask(engine))
        await until(lambda: server.requests)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await asyncio.wait_for(server.requests[0].gone.wait(), PATIENCE_S)
        assert engine.load.running == 0


async def test_more_answers_than_connections_wait_and_more_than_that_are_refused() -> None:
    gate = asyncio.Event()

    async def when_told(writer: asyncio.StreamWriter, request: Any) -> None:
        await gate.wait()
        await streams(*WHOLE)(writer, request)

    async with served(when_told, max_connections=2, max_waiting=3) as (server, engine):
        tasks = [asyncio.ensure_future(ask(engine)) for _ in range(5)]
        await until(lambda: len(server.requests) == 2 and engine.load.waiting == 3)
        assert engine.load == Load(running=2, waiting=3, slots=2)
        with pytest.raises(OverloadedError, match="TRITONRAG_OPENAI_MAX_WAITING"):
            await ask(engine)
        tasks[-1].cancel()
        await until(lambda: engine.load.waiting == 2)
        gate.set()
        assert [text_of(deltas) for deltas in await asyncio.gather(*tasks[:4])] == ["Hello world."] * 4
        assert engine.load == Load(running=0, waiting=0, slots=2)


async def test_a_reader_that_stalls_holds_nobody_else_up_and_no_memory() -> None:
    many = [chunk("x" * 1000)] * 8000
    sent = 0

    async def counted(writer: asyncio.StreamWriter, request: Any) -> None:  # noqa: ARG001
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for piece in many:
            writer.write(piece)
            await writer.drain()
            sent += 1

    async with served(counted, streams(*WHOLE)) as (_, engine):
        stalled = engine.generate(PROMPT, Sampling(max_tokens=20))
        await anext(stalled)
        for _ in range(20):
            assert text_of(await ask(engine)) == "Hello world."
        assert sent < len(many)  # the rest waits at the server, for its socket is full
        await stalled.aclose()


async def test_closing_ends_what_runs_and_what_waits() -> None:
    async with served(streams(chunk("Hello"), then=stalls), stalls, max_connections=2) as (server, engine):
        running = engine.generate(PROMPT, Sampling(max_tokens=20))
        await anext(running)
        beginning, waiting = (asyncio.ensure_future(ask(engine)) for _ in range(2))
        upcoming = asyncio.ensure_future(anext(running))
        await until(lambda: len(server.requests) == 2 and engine.load.waiting == 1)
        await engine.close()
        results = await asyncio.gather(upcoming, beginning, waiting, return_exceptions=True)
        assert [(type(result), "being closed" in str(result)) for result in results] == [(UnavailableError, True)] * 3
        with pytest.raises(UnavailableError, match="being closed"):
            await ask(engine)


async def test_the_key_is_in_no_repr_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(answers("401 Unauthorized", json.dumps({"error": {"message": f"bad key {KEY}"}}))) as (_, engine):
        with pytest.raises(UnavailableError) as caught:
            await ask(engine)
    shown = repr(engine.__dict__) + repr(vars(engine._server)) + caplog.text + repr(caught.value)
    assert KEY not in shown
    assert "TRITONRAG_OPENAI_API_KEY" in caplog.text
