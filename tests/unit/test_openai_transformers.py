"""Against a real server with a real language model, the openai engine gives what that model writes."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai_misbehaving_server import PROMPT, ask, engine_at, opened, text_of
from openai_transformers_server import transformers_server

from tritonrag_backends.generation.engine import Message, Prompt, Sampling
from tritonrag_client.errors import BadRequestError, UnavailableError

QUESTIONS = (
    "What is a with statement?",
    "How do I try?",
    "assert x == 1",
    "é 😀 中文",
    "Why?",
    "a",
    "b c d",
    "for x in y",
)


@pytest.fixture(scope="module")
def url(tiny_hf_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with transformers_server(tiny_hf_dir, tmp_path_factory.mktemp("openai") / "server.log") as url:
        yield url


@pytest.fixture(scope="module")
def written(tiny_hf_dir: Path) -> dict[str, str]:
    """What the model itself writes, likeliest token by likeliest token: 24 tokens for each question."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - loads torch

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_hf_dir)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_hf_dir)
    texts = {}
    for question in QUESTIONS:
        inputs = tokenizer.apply_chat_template(
            as_fields(prompt(question).messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        texts[question] = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def prompt(question: str) -> Prompt:
    messages = (Message(role="system", content="Answer."), Message(role="user", content=question))
    return replace(PROMPT, question=question, messages=messages)


def as_fields(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


async def test_the_likeliest_tokens_are_the_models_own(url: str, written: dict[str, str], tiny_hf_dir: Path) -> None:
    async with opened(engine_at(url, model=str(tiny_hf_dir))) as engine:
        for question in QUESTIONS:
            deltas = await ask(engine, prompt(question), max_tokens=24)
            assert text_of(deltas) == written[question]
            assert len(deltas) > 5
            assert deltas[-1].usage is not None
            assert 0 < deltas[-1].usage.completion_tokens <= 24


async def test_eight_at_once_get_each_their_own(url: str, written: dict[str, str], tiny_hf_dir: Path) -> None:
    async with opened(engine_at(url, model=str(tiny_hf_dir), max_connections=5)) as engine:
        answers = await asyncio.gather(*(ask(engine, prompt(question), max_tokens=24) for question in QUESTIONS))
        assert [text_of(deltas) for deltas in answers] == [written[question] for question in QUESTIONS]


async def test_the_budget_and_stop_words_end_an_answer(url: str, written: dict[str, str], tiny_hf_dir: Path) -> None:
    async with opened(engine_at(url, model=str(tiny_hf_dir))) as engine:
        text = written[QUESTIONS[0]]
        assert (await ask(engine, prompt(QUESTIONS[0]), max_tokens=3))[-1].finish_reason == "length"
        deltas = await ask(engine, prompt(QUESTIONS[0]), max_tokens=24, stop_words=(text[10:14],))
        assert (text_of(deltas), deltas[-1].finish_reason) == (text[: text.index(text[10:14])], "stop")


async def test_those_who_leave_do_not_keep_the_others_waiting(
    url: str, written: dict[str, str], tiny_hf_dir: Path
) -> None:
    async with opened(engine_at(url, model=str(tiny_hf_dir))) as engine:
        for _ in range(20):
            async with aclosing(engine.generate(PROMPT, Sampling(max_tokens=1500))) as deltas:
                await anext(deltas)
        assert text_of(await ask(engine, prompt(QUESTIONS[0]), max_tokens=24)) == written[QUESTIONS[0]]


async def test_what_the_server_does_not_know_is_refused(url: str, tiny_hf_dir: Path) -> None:
    async with opened(engine_at(url, model=str(tiny_hf_dir), cache_salt=True)) as engine:
        with pytest.raises(BadRequestError, match="requested 'legal'"):
            await ask(engine, lora_name="legal")
        with pytest.raises(UnavailableError, match="refuses every request"):
            await ask(engine, replace(PROMPT, tenant="acme"))
    async with opened(engine_at(url, model="other")) as other:
        with pytest.raises(UnavailableError, match="refuses every request"):
            await ask(other)


async def test_tokens_are_counted_no_lower_than_the_server_counts_them(url: str, tiny_hf_dir: Path) -> None:
    async with opened(engine_at(url, model=str(tiny_hf_dir), tokenizer=tiny_hf_dir / "tokenizer.json")) as engine:
        for question in QUESTIONS:
            asked = prompt(question)
            usage = (await ask(engine, asked, max_tokens=1))[-1].usage
            assert usage is not None
            counted = engine.count_tokens(asked.messages)
            assert usage.prompt_tokens <= counted <= usage.prompt_tokens + 8 * len(asked.messages)
