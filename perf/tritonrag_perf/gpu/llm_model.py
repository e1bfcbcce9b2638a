"""A language model of a real size with random weights, made on the spot: what it writes is nonsense, what it costs is real."""

import pydoc_data.topics
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

_CONTEXT_TOKENS: Final = 8_192
_SPECIAL: Final = ("<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
_CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + " .,;:-'\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaShape:
    """Sizes as in config.json. `words` of the vocabulary have a text; the rest is there for its cost."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    words: int
    initializer_range: float

    @property
    def parameters(self) -> int:
        """Weights in all, norms left out."""
        kept = self.num_key_value_heads / self.num_attention_heads
        layer = self.hidden_size**2 * (2 + 2 * kept) + 3 * self.hidden_size * self.intermediate_size
        return round(self.num_hidden_layers * layer + 2 * self.vocab_size * self.hidden_size)


SHAPES: Final[Mapping[str, LlamaShape]] = {
    "8b": LlamaShape(  # Llama 3.1 8B
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128_256,
        words=16_000,
        initializer_range=0.02,
    ),
    "1b": LlamaShape(  # Llama 3.2 1B, its output weights not shared with the input's
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128_256,
        words=16_000,
        initializer_range=0.02,
    ),
    "tiny": LlamaShape(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=640,
        words=600,
        initializer_range=0.2,  # with 0.02 one token wins everywhere in so narrow a model
    ),
}


def make_model(folder: Path, shape: LlamaShape, *, device: str) -> Path:
    """A model folder as `save_pretrained` writes it, BF16 (FP32 on a CPU), made on the device. The same each time on one device.

    It writes plain ASCII and never ends by itself, so that every answer has as many tokens as were asked for, each with a text.
    """
    import torch  # noqa: PLC0415 - loads only where it is measured
    import transformers  # noqa: PLC0415

    library: Any = transformers  # half of it has no types

    tokenizer = _make_tokenizer(shape.words)
    sizes = asdict(shape)
    sizes.pop("words")
    config = library.LlamaConfig(
        **sizes,
        max_position_embeddings=_CONTEXT_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        model = library.AutoModelForCausalLM.from_config(config, dtype=dtype)
    writable = torch.zeros(shape.vocab_size, dtype=torch.bool, device=device)
    writable[_writable(tokenizer)] = True
    with torch.no_grad():
        model.lm_head.weight[~writable] = 0  # a score of 0, where the best of the others is far above
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    if device == "cuda":
        torch.cuda.empty_cache()  # the server that loads it again needs as much
    return folder


def _make_tokenizer(words: int) -> Any:  # noqa: ANN401 - transformers' class
    """Byte pairs learned from Python's own documentation."""
    import transformers  # noqa: PLC0415
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

    make: Any = transformers.PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(list(pydoc_data.topics.topics.values()), trainer)
    fast = make(
        tokenizer_object=tokenizer,
        bos_token=_SPECIAL[0],
        eos_token=_SPECIAL[1],
        pad_token=_SPECIAL[1],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = _CHAT_TEMPLATE
    return fast


def _writable(tokenizer: Any) -> list[int]:  # noqa: ANN401 - as above
    """Tokens that are whole plain characters: others would be held back until the rest of a character comes."""
    texts = ((number, tokenizer.decode([number])) for number in range(len(_SPECIAL), len(tokenizer)))
    return [number for number, text in texts if text and set(text) <= _PLAIN]
