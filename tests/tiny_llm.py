"""A language model that fits a test: random weights, a tokenizer trained on Python's own documentation."""

import pydoc_data.topics
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT_TOKENS = 8192  # a passage takes some 700 of so small a vocabulary
SPECIAL = ("<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def make_hf_model(folder: Path, *, endless: bool = False) -> Path:
    """A model folder as `save_pretrained` writes it. The same each time. `endless`: it never ends an answer by itself."""
    _tokenizer().save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.2,  # with the usual 0.02 one token wins everywhere
    )
    model = LlamaForCausalLM(config).eval()
    if endless:
        with torch.no_grad():
            model.lm_head.weight[1].zero_()  # a score of 0, where the best of 600 is far above
    model.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([pydoc_data.topics.topics[name] for name in ("with", "try", "assert")], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_lora_adapters(hf: Path, folder: Path) -> dict[str, Path]:
    """Two adapters for `make_hf_model`'s, as PEFT saves them, by name: of other ranks, modules and scales.

    Their weights are large enough that greedy answers differ. The same each time.
    """
    configs = {
        "terse": LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"]),
        "polite": LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "o_proj", "gate_proj"], use_rslora=True),
    }
    return {name: _make_lora(hf, folder / name, config, seed) for seed, (name, config) in enumerate(configs.items())}


def _make_lora(hf: Path, folder: Path, config: LoraConfig, seed: int) -> Path:
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT uses what transformers is about to drop
        model = get_peft_model(LlamaForCausalLM.from_pretrained(hf), config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder)
    return folder
