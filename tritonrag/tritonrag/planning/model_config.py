"""A language model's shape from its folder: config.json as transformers writes it, and what a quantised checkpoint adds to it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tritonrag.planning.language_model import LanguageModel, Precision
from tritonrag_client.errors import BadRequestError

_FEWEST: Final = 1
_EXPERTS: Final = ("num_local_experts", "num_experts", "n_routed_experts")
# ModelOpt's names (hf_quant_config.json), and those of transformers' quantization_config.
_QUANTISED: Final[dict[str, Precision]] = {
    "fp8": "fp8",
    "w4a16_awq": "int4-awq",
    "awq": "int4-awq",
    "gptq": "int4-awq",
    "nvfp4": "nvfp4",
    "int8_sq": "int8",
    "w8a16": "int8",
}
_DTYPES: Final[dict[str, Precision]] = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def read_model_folder(folder: Path) -> LanguageModel:
    """The model in a folder. Weights are counted by the files where there are any, else by the formula of Llama-like decoders.

    Raises BadRequestError where config.json is missing, says too little, or tells of something that this arithmetic doesn't cover.
    """
    config = _read_object(folder / "config.json")
    experts = next((key for key in _EXPERTS if config.get(key)), None)
    if experts is not None:
        raise BadRequestError(
            f"{folder}/config.json has {experts} {config[experts]}: mixtures of experts read few of their weights for a token,"
            " which this plan doesn't count; plan with a dense model"
        )
    hidden, heads = _whole(config, "hidden_size", folder), _whole(config, "num_attention_heads", folder)
    layers = _whole(config, "num_hidden_layers", folder)
    kv_heads = _whole(config, "num_key_value_heads", folder, default=heads)
    head_size = _whole(config, "head_dim", folder, default=max(_FEWEST, hidden // heads))
    tied = bool(config.get("tie_word_embeddings", False))
    table = _whole(config, "vocab_size", folder) * hidden * (1 if tied else 2)
    attention = 2 * hidden * head_size * (heads + kv_heads)  # queries and output; keys and values
    layer = attention + 3 * hidden * _whole(config, "intermediate_size", folder) + 2 * hidden
    quantised = _quantisation(folder, config)
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return LanguageModel(
        name=folder.name or str(folder),
        precision=_precision(folder, config, quantised),
        params=table + layers * layer + hidden,
        table_params=table,
        tied=tied,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        kv_value_bytes=1.0 if str(quantised.get("kv_cache_quant_algo", "")).lower() == "fp8" else 2.0,
        stored_bytes=stored or None,
        source=f"{folder.name or folder}/config.json",
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadRequestError(f"there is no {path}; name a folder as transformers saves a model") from error
    except (OSError, ValueError) as error:
        raise BadRequestError(
            f"{path} can't be read as JSON ({error}); name a folder as transformers saves it"
        ) from error
    if not isinstance(value, dict):
        raise BadRequestError(f"{path} holds no JSON object; name a folder as transformers saves a model")
    return value


def _whole(config: Mapping[str, Any], key: str, folder: Path, *, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < _FEWEST:
        raise BadRequestError(f"{key} in {folder}/config.json is {value!r}; it must be a whole number from 1 on")
    return value


def _quantisation(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the checkpoint says of its quantisation, of ModelOpt's file or of transformers' key; empty where it says nothing."""
    modelopt = folder / "hf_quant_config.json"
    found = _read_object(modelopt).get("quantization") if modelopt.exists() else config.get("quantization_config")
    return found if isinstance(found, dict) else {}


def _precision(folder: Path, config: Mapping[str, Any], quantised: Mapping[str, Any]) -> Precision:
    method = quantised.get("quant_algo") or quantised.get("quant_method")
    if method is not None:
        precision = _QUANTISED.get(str(method).lower())
        if precision is None:
            raise BadRequestError(f"{folder} is quantised by {method!r}, which is not one of {', '.join(_QUANTISED)}")
        return precision
    return _DTYPES.get(str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"), "bf16")
