"""The `tensorrt_llm` engine on hardware: `pytest -m gpu tests/gpu` in the production image. It has not been run yet.

A small Llama with random weights is made on the spot, so that nothing is downloaded.
"""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tritonrag_backends.generation.engine import Delta, Message, Prompt, Sampling
from tritonrag_backends.generation.tensorrt_llm.engine import TensorRtLlmEngine, open_tensorrt_llm
from tritonrag_backends.generation.tensorrt_llm.settings import TrtllmSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(importlib.util.find_spec("tensorrt_llm") is None, reason="TensorRT-LLM is not installed"),
    pytest.mark.skipif(not any(Path("/proc/driver/nvidia/gpus").glob("*")), reason="there is no NVIDIA GPU"),
    pytest.mark.timeout(1200),
]

PROMPT = Prompt(question="Why?", passages=(), messages=(Message(role="user", content="Tell me about lists."),))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough for the library's kernels: heads of 64, a vocabulary and hidden sizes that they take."""
    import torch  # noqa: PLC0415
    from tests.tiny_llm import make_hf_model  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    folder = make_hf_model(tmp_path_factory.mktemp("gpu") / "hf")  # for its tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one adapter that changes what is likeliest."""
    import torch  # noqa: PLC0415
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    torch.manual_seed(1)
    config = LoraConfig(r=8, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    folder = tmp_path_factory.mktemp("adapters")
    adapted.save_pretrained(folder / "other")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: Path, adapters: Path) -> AsyncIterator[TensorRtLlmEngine]:
    settings = TrtllmSettings(
        model=model, max_batch_size=8, max_seq_len=2048, kv_max_tokens=32_768, kv_fraction=0.2, lora_dir=adapters
    )
    opened = open_tensorrt_llm(settings)
    yield opened
    await opened.close()


async def ask(engine: TensorRtLlmEngine, sampling: Sampling, tenant: str | None = None) -> list[Delta]:
    prompt = Prompt(question=PROMPT.question, passages=(), messages=PROMPT.messages, tenant=tenant)
    return [delta async for delta in engine.generate(prompt, sampling)]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.mark.asyncio(loop_scope="module")
async def test_greedy_answers_repeat_alone_and_together_and_stream(engine: TensorRtLlmEngine) -> None:
    sampling = Sampling(max_tokens=64)
    alone = await ask(engine, sampling)
    assert len(alone) > 1
    assert alone[-1].finish_reason in {"stop", "length"}
    together = await asyncio.gather(*(ask(engine, sampling) for _ in range(8)))
    assert {text_of(deltas) for deltas in together} == {text_of(alone)}


@pytest.mark.asyncio(loop_scope="module")
async def test_leaving_frees_the_place(engine: TensorRtLlmEngine) -> None:
    for _ in range(32):
        deltas = engine.generate(PROMPT, Sampling(max_tokens=1500))
        await anext(deltas)
        await deltas.aclose()
    assert engine.load.running == 0
    assert text_of(await ask(engine, Sampling(max_tokens=8)))


@pytest.mark.asyncio(loop_scope="module")
async def test_an_adapter_changes_the_answer_and_only_where_it_is_asked_for(engine: TensorRtLlmEngine) -> None:
    plain = text_of(await ask(engine, Sampling(max_tokens=32)))
    adapted = text_of(await ask(engine, Sampling(max_tokens=32, lora_name="other")))
    assert adapted != plain
    assert text_of(await ask(engine, Sampling(max_tokens=32))) == plain


@pytest.mark.asyncio(loop_scope="module")
async def test_a_tenants_salt_changes_nothing_in_the_answer(engine: TensorRtLlmEngine) -> None:
    sampling = Sampling(max_tokens=32)
    answers = [await ask(engine, sampling, tenant) for tenant in (None, "acme", "acme", "other")]
    assert len({text_of(deltas) for deltas in answers}) == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_seeds_repeat_where_the_engine_says_so(engine: TensorRtLlmEngine) -> None:
    if not engine.capabilities.seeds:
        pytest.skip("this release does not honour seeds with this sampler")
    texts = [text_of(await ask(engine, Sampling(max_tokens=32, temperature=1.5, seed=seed))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
