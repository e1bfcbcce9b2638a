"""Holds an exported model to transformers in FP32: the same tokens in, logits and greedy answers compared.

The exported side runs through ONNX Runtime GenAI, as in serving. An FP32 export must agree; what a quantised one loses is
reported. The reference takes 4 bytes a parameter of memory.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.generation.genai.format import Parity, Precision, adapter_file
from tritonrag_client.errors import InternalError
from tritonrag_export.generator.lora import LoraAdapter

Logits = npt.NDArray[np.float32]

# Measured: 5e-6 on a tiny model, 7e-5 on SmolLM2-135M. A wrong graph is off by 1 and more.
FP32_LIMIT: Final = 0.02
ANSWER_TOKENS: Final = 24
PROMPTS: Final = (
    "What does the with statement do in Python, and when is it of use?",
    "Passages:\n[1] The bridge was opened in 1894 and carries two railway tracks.\n\nQuestion: When was the bridge opened?",
    "def read_lines(path):\n    with open(path, encoding='utf-8') as file:\n        return",
    "Berlin ist die Hauptstadt von Deutschland. La capitale de la France est Paris; le siège du gouvernement est à",
)


def measure_parity(
    folder: Path, checkpoint: Path, adapters: Sequence[LoraAdapter]
) -> tuple[Parity, Mapping[str, Parity]]:
    """The model's parity, and that of each adapter by name, for the export in `folder` of the model in `checkpoint`."""
    reference, exported = _Reference(checkpoint), _Exported(folder, [adapter.name for adapter in adapters])
    prompts = reference.tokenize(PROMPTS, exported.context_tokens - ANSWER_TOKENS)
    base = _compare(reference, exported, prompts, None)
    by_adapter = {}
    for adapter in adapters:
        with reference.adapted(adapter):
            by_adapter[adapter.name] = _compare(reference, exported, prompts, adapter.name)
    return base, by_adapter


def check_parity(parity: Parity, precision: Precision, what: str) -> None:
    """Raises InternalError where the export is not the model: FP32 that differs, or logits that are no numbers."""
    difference = parity.max_abs_logit_difference
    limit = FP32_LIMIT if precision == "fp32" else math.inf
    if not difference <= limit or math.isinf(difference):
        raise InternalError(
            f"{what}, exported as {precision}, gives logits that differ from transformers' by {difference:.3g}; "
            f"it was not kept, because its answers would be wrong. Please report this, with the model's name"
        )


def _compare(
    reference: "_Reference", exported: "_Exported", prompts: Sequence[list[int]], adapter: str | None
) -> Parity:
    difference, equal, positions, answers = 0.0, 0, 0, 0
    for prompt in prompts:
        answer = reference.answer(prompt)
        expected = reference.logits(prompt + answer)
        found = exported.logits(prompt + answer, adapter)
        difference = max(difference, float(np.abs(expected - found).max()))
        equal += int((expected.argmax(axis=-1) == found.argmax(axis=-1)).sum())
        positions += len(expected)
        answers += exported.cut(answer) == exported.cut(exported.answer(prompt, adapter))
    return Parity(
        prompts=len(prompts),
        positions=positions,
        max_abs_logit_difference=difference,
        equal_tokens=equal / positions,
        equal_answers=answers,
    )


class _Reference:
    """The model as transformers runs it, in FP32 on the CPU."""

    def __init__(self, checkpoint: Path) -> None:
        import torch  # noqa: PLC0415 - heavy
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

        self._torch = torch
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        models: Any = AutoModelForCausalLM
        self._model = models.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def tokenize(self, texts: Sequence[str], longest: int) -> list[list[int]]:
        """Token ids; with the chat template where the model has one, for that is what it will be asked with."""
        if self._tokenizer.chat_template:
            chats = [[{"role": "user", "content": text}] for text in texts]
            texts = [
                self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats
            ]
        return [list(self._tokenizer(text, add_special_tokens=False).input_ids)[:longest] for text in texts]

    def logits(self, ids: Sequence[int]) -> Logits:
        """FP32 [tokens, vocabulary]."""
        with self._torch.no_grad():
            values: Logits = self._model(self._torch.tensor([list(ids)])).logits[0].numpy()
        return values

    def answer(self, prompt: Sequence[int]) -> list[int]:
        """The likeliest token, again and again; past an end token too. Written out, to heed no setting of the model's."""
        ids, past, answer = self._torch.tensor([list(prompt)]), None, []
        with self._torch.no_grad():
            for _ in range(ANSWER_TOKENS):
                step = self._model(ids, past_key_values=past, use_cache=True)
                ids, past = step.logits[:, -1:].argmax(dim=-1), step.past_key_values
                answer.append(int(ids))
        return answer

    @contextmanager
    def adapted(self, adapter: LoraAdapter) -> Iterator[None]:
        """The model with the adapter added to its weights, and afterwards as it was."""
        weights = {module: self._model.get_submodule(module).weight for module in adapter.pairs}
        before = {module: weight.detach().clone() for module, weight in weights.items()}
        with self._torch.no_grad():
            for module, pair in adapter.pairs.items():
                weights[module] += self._torch.from_numpy((pair.down @ pair.up).T.copy())
            yield
            for module, weight in weights.items():
                weight.copy_(before[module])


class _Exported:
    """The exported folder as ONNX Runtime GenAI runs it."""

    def __init__(self, folder: Path, adapters: Sequence[str]) -> None:
        import onnxruntime_genai as genai  # noqa: PLC0415 - heavy

        self._genai = genai
        config = json.loads((folder / "genai_config.json").read_bytes())["model"]
        ends = config["eos_token_id"]
        self._ends = set(ends if isinstance(ends, list) else [ends])
        self.context_tokens = int(config["context_length"])
        self._model = genai.Model(str(folder))
        self._adapters: Any = genai.Adapters(self._model)
        for name in adapters:
            self._adapters.load(str(folder / adapter_file(name)), name)

    def logits(self, ids: Sequence[int], adapter: str | None) -> Logits:
        """FP32 [tokens, vocabulary]."""
        generator = self._start(ids, len(ids) + 1, adapter)
        values: Logits = np.asarray(generator.get_output("logits")[0], dtype=np.float32)
        return values

    def answer(self, prompt: Sequence[int], adapter: str | None) -> list[int]:
        """The likeliest token, again and again, at most `ANSWER_TOKENS`."""
        generator = self._start(prompt, len(prompt) + ANSWER_TOKENS, adapter)
        while not generator.is_done():
            generator.generate_next_token()
        return [int(token) for token in generator.get_sequence(0)[len(prompt) :]]

    def cut(self, answer: Sequence[int]) -> list[int]:
        """The tokens before the first that ends an answer."""
        end = next((place for place, token in enumerate(answer) if token in self._ends), len(answer))
        return list(answer[:end])

    def _start(self, ids: Sequence[int], longest: int, adapter: str | None) -> Any:  # noqa: ANN401 - ships without types
        parameters = self._genai.GeneratorParams(self._model)
        parameters.set_search_options(
            do_sample=False, max_length=longest, min_length=0, repetition_penalty=1.0, no_repeat_ngram_size=0
        )
        generator = self._genai.Generator(self._model, parameters)
        if adapter is not None:
            generator.set_active_adapter(self._adapters, adapter)
        generator.append_tokens(np.array(ids, np.int32))
        return generator
