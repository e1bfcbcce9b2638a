"""The `onnxruntime_genai` engine with a real model of random weights, in its own process."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from tritonrag_backends.generation.engine import Delta, Message, Prompt, Sampling
from tritonrag_backends.generation.genai.engine import GenaiEngine, open_genai
from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_client.errors import BadRequestError, NotFoundError, OverloadedError, RagError, UnavailableError

QUESTIONS = [f"What is number {number}? {'Tell more. ' * (number % 5)}" for number in range(12)]
TOKENS = 40


def prompt(question: str) -> Prompt:
    return Prompt(question=question, passages=(), messages=(Message(role="user", content=question),))


async def ask(engine: GenaiEngine, question: str, sampling: Sampling | None = None) -> list[Delta]:
    return [delta async for delta in engine.generate(prompt(question), sampling or Sampling(max_tokens=TOKENS))]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def until(condition: Callable[[], bool], deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        await asyncio.sleep(0.01)


@pytest.fixture
async def engine(endless_llm_dir: Path) -> AsyncIterator[GenaiEngine]:
    opened = open_genai(GenaiSettings(model=endless_llm_dir, threads=1))
    yield opened
    await opened.close()


def by_transformers(folder: Path, questions: list[str]) -> list[str]:
    """Greedy answers of the same weights, one at a time."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - the oracle

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    texts = []
    for question in questions:
        chat = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
        with torch.inference_mode():
            written = model.generate(ids, max_new_tokens=TOKENS, do_sample=False, attention_mask=torch.ones_like(ids))
        texts.append(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


async def test_greedy_answers_are_those_of_transformers_alone_and_many_at_once(
    tiny_llm_dir: Path, tiny_hf_dir: Path
) -> None:
    engine = open_genai(GenaiSettings(model=tiny_llm_dir, threads=1))
    expected = by_transformers(tiny_hf_dir, QUESTIONS)
    assert [text_of(await ask(engine, question)) for question in QUESTIONS] == expected
    together = await asyncio.gather(*(ask(engine, question) for question in QUESTIONS))
    assert [text_of(deltas) for deltas in together] == expected
    assert any(len(deltas) > 1 for deltas in together)
    assert engine.load.running == engine.load.waiting == 0
    await engine.close()


async def test_the_last_delta_counts_the_tokens(engine: GenaiEngine) -> None:
    deltas = await ask(engine, QUESTIONS[0], Sampling(max_tokens=7))
    assert deltas[-1].finish_reason == "length"
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == 7
    assert deltas[-1].usage.prompt_tokens == engine.count_tokens(prompt(QUESTIONS[0]).messages)


async def test_seeds_repeat_alone_and_beside_others(engine: GenaiEngine) -> None:
    sampled = Sampling(max_tokens=TOKENS, temperature=2.0, seed=2**63 + 5)
    alone = text_of(await ask(engine, "Why?", sampled))
    together = await asyncio.gather(
        ask(engine, "Why?", sampled),
        *(ask(engine, question, Sampling(max_tokens=TOKENS, temperature=2.0)) for question in QUESTIONS[:4]),
    )
    other = text_of(await ask(engine, "Why?", Sampling(max_tokens=TOKENS, temperature=2.0, seed=6)))
    assert text_of(together[0]) == alone != other


async def test_a_stop_word_is_cut_wherever_tokens_end(engine: GenaiEngine) -> None:
    whole = text_of(await ask(engine, QUESTIONS[1]))
    word = whole[len(whole) // 2 : len(whole) // 2 + 5]
    cut = await ask(engine, QUESTIONS[1], Sampling(max_tokens=TOKENS, stop_words=(word,)))
    assert text_of(cut) == whole[: whole.index(word)]
    assert cut[-1].finish_reason == "stop"


async def test_leaving_frees_the_place_and_memory_stays_flat(engine: GenaiEngine) -> None:
    long = Sampling(max_tokens=1500)

    async def leave(count: int) -> None:
        for _ in range(count):
            deltas = engine.generate(prompt("Go on and on. " * 20), long)
            await anext(deltas)
            await deltas.aclose()
        await until(lambda: engine.load.running == engine.load.waiting == 0)

    await leave(20)
    before = worker(engine).memory_info().rss
    await leave(60)
    assert worker(engine).memory_info().rss < before * 1.1 + 16 * 2**20


async def test_what_does_not_fit_is_refused_with_the_numbers(engine: GenaiEngine) -> None:
    with pytest.raises(BadRequestError, match="8192"):
        await ask(engine, "x", Sampling(max_tokens=8192))
    with pytest.raises(BadRequestError, match="lora_name is 'nobody'"):
        await ask(engine, "x", Sampling(max_tokens=5, lora_name="nobody"))
    assert text_of(await ask(engine, QUESTIONS[0]))


async def test_more_than_may_wait_are_overloaded(endless_llm_dir: Path) -> None:
    engine = open_genai(GenaiSettings(model=endless_llm_dir, threads=1, lanes=1, batch=1, max_waiting=1))
    long = Sampling(max_tokens=1500)
    streams = [engine.generate(prompt(question), long) for question in QUESTIONS[:2]]
    first = asyncio.create_task(anext(streams[0]))
    second = asyncio.create_task(anext(streams[1]))
    await first
    assert (engine.load.running, engine.load.waiting, engine.load.slots) == (1, 1, 1)
    with pytest.raises(OverloadedError):
        await ask(engine, "x")
    second.cancel()
    for stream in streams:
        await asyncio.wait([second])
        await stream.aclose()
    await engine.close()


async def test_the_bound_holds_for_those_who_come_while_the_worker_is_first_talked_to(tiny_llm_dir: Path) -> None:
    engine = open_genai(GenaiSettings(model=tiny_llm_dir, threads=1, lanes=1, batch=1, max_waiting=1))
    try:
        came = await asyncio.gather(*(ask(engine, question) for question in QUESTIONS), return_exceptions=True)
        assert sum(isinstance(outcome, OverloadedError) for outcome in came) == len(QUESTIONS) - 2
        assert text_of(await ask(engine, QUESTIONS[0]))
    finally:
        await engine.close()


async def test_one_who_leaves_before_the_worker_is_first_talked_to_holds_no_place(engine: GenaiEngine) -> None:
    early = asyncio.create_task(ask(engine, QUESTIONS[0]))
    await asyncio.sleep(0)
    assert engine.load.waiting == 1
    early.cancel()
    await asyncio.wait([early])
    assert engine.load.waiting == engine.load.running == 0
    assert text_of(await ask(engine, QUESTIONS[0]))


async def test_seeded_answers_that_are_left_free_their_place_and_memory_stays_flat(engine: GenaiEngine) -> None:
    async def leave(count: int) -> None:
        for seed in range(count):
            deltas = engine.generate(prompt("On. " * 99), Sampling(max_tokens=1500, temperature=1.0, seed=seed))
            await anext(deltas)
            await deltas.aclose()
        await until(lambda: engine.load.running == engine.load.waiting == 0)

    await leave(20)
    before = worker(engine).memory_info().rss
    await leave(60)
    assert worker(engine).memory_info().rss < before * 1.1 + 16 * 2**20


async def test_a_generator_with_many_files_open_starts_its_worker(tiny_llm_dir: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        engine = open_genai(GenaiSettings(model=tiny_llm_dir, threads=1))
        assert text_of(await ask(engine, QUESTIONS[0]))
        await engine.close()
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_killed_worker_fails_what_ran_and_is_started_again(engine: GenaiEngine) -> None:
    expected = text_of(await ask(engine, QUESTIONS[0]))
    running = asyncio.create_task(ask(engine, "Go on.", Sampling(max_tokens=3000)))
    await until(lambda: engine.load.running == 1)
    os.kill(worker(engine).pid, signal.SIGKILL)
    with pytest.raises(UnavailableError):
        await running
    for _ in range(500):
        try:
            assert text_of(await ask(engine, QUESTIONS[0])) == expected
            break
        except UnavailableError:
            await asyncio.sleep(0.02)
    else:
        raise AssertionError("it was not started again")
    assert engine.load.running == 0


async def test_closing_while_something_runs_ends_it_and_the_worker(engine: GenaiEngine) -> None:
    running = asyncio.create_task(ask(engine, "Go on.", Sampling(max_tokens=3000)))
    await until(lambda: engine.load.running == 1)
    process = worker(engine)
    await engine.close()
    with pytest.raises(UnavailableError):
        await running
    await until(lambda: not process.is_running())
    with pytest.raises(UnavailableError):
        await ask(engine, "x")


def test_the_worker_dies_with_whoever_started_it(tiny_llm_dir: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path;"
        "from tritonrag_backends.generation.genai.engine import open_genai;"
        "from tritonrag_backends.generation.genai.settings import GenaiSettings;"
        "e = open_genai(GenaiSettings(model=Path(sys.argv[1])));"
        "print(e._supervisor._worker.process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tiny_llm_dir)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    end = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the worker lives on"
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["genai_config.json", "tokenizer.json"])
def test_a_folder_that_is_no_model_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFoundError, match="tritonrag export generator"):
        open_genai(GenaiSettings(model=tmp_path / "none"))
    (tmp_path / name).write_text("{}")
    with pytest.raises(NotFoundError, match="holds no"):
        open_genai(GenaiSettings(model=tmp_path))


def test_a_model_that_the_library_cant_load_is_told_with_the_way_out(tmp_path: Path, tiny_llm_dir: Path) -> None:
    for file in tiny_llm_dir.iterdir():
        if file.suffix != ".onnx" and file.name != "generator.json" and file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(RagError, match="export it again"):
        open_genai(GenaiSettings(model=tmp_path))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, which asks transformers by an old name
async def test_an_adapter_changes_the_answer_as_it_does_in_peft(
    tiny_llm_with_adapters_dir: Path, tiny_hf_dir: Path, tiny_lora_dirs: dict[str, Path]
) -> None:
    engine = open_genai(GenaiSettings(model=tiny_llm_with_adapters_dir, threads=1))
    try:
        assert set(engine.capabilities.lora_names or ()) == set(tiny_lora_dirs)
        question = QUESTIONS[3]
        names = [None, *tiny_lora_dirs]
        expected = {name: by_peft(tiny_hf_dir, tiny_lora_dirs.get(name or ""), question) for name in names}
        assert len(set(expected.values())) == len(names)
        together = await asyncio.gather(
            *(ask(engine, question, Sampling(max_tokens=TOKENS, lora_name=name)) for name in names)
        )
        assert dict(zip(names, map(text_of, together), strict=True)) == expected
    finally:
        await engine.close()


def by_peft(folder: Path, adapter: Path | None, question: str) -> str:
    import torch  # noqa: PLC0415
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - the oracle

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    model = (model if adapter is None else PeftModel.from_pretrained(model, adapter)).eval()
    chat = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    with torch.inference_mode():
        written = model.generate(
            input_ids=ids, max_new_tokens=TOKENS, do_sample=False, attention_mask=torch.ones_like(ids)
        )
    return str(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))


def worker(engine: GenaiEngine) -> psutil.Process:
    process = engine._supervisor._worker
    assert process is not None
    return psutil.Process(process.process.pid)
