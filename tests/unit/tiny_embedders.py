"""Tiny embedding models with random weights, as folders that can be exported."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tritonrag_export.embedder.families import read_config, weight_shapes

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
]
CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS),
}
FIRST_LETTER = 4  # the ids before it are special tokens


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def change(path: Path, **fields: object) -> None:
    write_json(path, json.loads(path.read_text()) | fields)


def make_tokenizer() -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def random_texts(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Texts of letters as token ids, none of them a special token."""
    generator = np.random.default_rng(seed)
    return [generator.integers(FIRST_LETTER, len(WORDS), length).tolist() for length in lengths]


def write_tiny_bert(folder: Path) -> Path:
    """A BERT as sentence-transformers saves it: mean pooling, 16 tokens, 32 dimensions."""
    write_json(folder / "config.json", CONFIG)
    write_json(
        folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 16})
    write_json(
        folder / "modules.json",
        [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling")],
    )
    make_tokenizer().save(str(folder / "tokenizer.json"))
    generator = np.random.default_rng(0)
    weights = {
        name: generator.normal(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.2, shape).astype(np.float32)
        for name, shape in weight_shapes(read_config(CONFIG, "config.json")).items()
    }
    save_file(weights, folder / "model.safetensors")
    return folder


def save_hf_model(folder: Path, config: Any, model: Any) -> Any:
    """The transformers model of this class with all weights random, saved with a tokenizer; returns it, ready to run."""
    import torch  # noqa: PLC0415 - slow to load, and few tests need it

    torch.manual_seed(0)
    made = model(config).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.normal_(1.0 if name.endswith(("LayerNorm.weight", "layer_norm.weight")) else 0.0, 0.2)
    made.save_pretrained(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return made
