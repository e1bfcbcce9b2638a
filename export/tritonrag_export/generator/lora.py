"""LoRA adapters as PEFT saves them (Hu et al. 2021, arXiv 2106.09685), read without torch and without PEFT.

adapter_config.json            rank, alpha, which variant
adapter_model.safetensors      base_model.model.MODULE.lora_A.weight [rank, in], ...lora_B.weight [out, rank]

A module's output becomes W x + scale B A x, where scale is alpha / rank, or alpha / sqrt(rank) with rsLoRA (Kalajdzievski
2023, arXiv 2312.03732). Variants that do more than this are refused, by their name in the configuration and by any weight
that is left over: an adapter applied in part would answer wrongly without a word.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from tritonrag_backends.generation.genai.format import check_adapter_name
from tritonrag_client.errors import BadRequestError, NotFoundError

Matrix = npt.NDArray[np.float32]

_PREFIX: Final = "base_model.model."
_WEIGHT: Final = re.compile(r"(?P<module>.+)\.lora_(?P<part>[AB])\.weight")
_NUMPY_TYPES: Final[Mapping[str, str]] = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
# Whatever changes the function beyond W x + scale B A x; each is off when it is absent, null, false, empty or this value.
_VARIANTS: Final[Mapping[str, object]] = {
    "use_dora": False,
    "use_qalora": False,
    "use_bdlora": None,
    "lora_bias": False,
    "bias": "none",
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "layer_replication": None,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "trainable_token_indices": None,
    "target_parameters": None,
    "megatron_config": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraPair:
    """One module's adapter in the order of a product from the left: `down` FP32 [in, rank], `up` FP32 [rank, out], scaled."""

    down: Matrix
    up: Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraAdapter:
    """An adapter: for each module that it changes, by the module's name in the model, what is added."""

    name: str
    pairs: Mapping[str, LoraPair]


def read_adapter(name: str, folder: Path) -> LoraAdapter:
    """Read a PEFT folder. Raises NotFoundError (a file is missing) or BadRequestError (name, variant, damaged weights)."""
    check_adapter_name(name)
    config = _read_config(name, folder)
    matrices = _read_weights(name, folder)
    modules = sorted({module for module, _part in matrices})
    return LoraAdapter(name=name, pairs={module: _pair(name, config, module, matrices) for module in modules})


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise NotFoundError(f"adapter {name}: {folder} is no PEFT folder: it holds no adapter_config.json")
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadRequestError(f"adapter {name}: {path} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise BadRequestError(f"adapter {name}: {path} describes no LoRA adapter (peft_type LORA)")
    for key, off in _VARIANTS.items():
        if config.get(key) and config[key] != off:
            raise BadRequestError(
                f"adapter {name} uses {key} = {config[key]!r}, which can't be exported; train a plain LoRA adapter"
            )
    return config


def _read_weights(name: str, folder: Path) -> Mapping[tuple[str, str], Matrix]:
    """FP32 by module and part (A, B), as they lie in the file."""
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        pickled = (
            " (adapter_model.bin is a pickle and may run code)" if (folder / "adapter_model.bin").is_file() else ""
        )
        raise NotFoundError(f"adapter {name}: {folder} holds no adapter_model.safetensors{pickled}")
    matrices: dict[tuple[str, str], Matrix] = {}
    for key, value in _load(name, path).items():
        match = _WEIGHT.fullmatch(key.removeprefix(_PREFIX))
        if match is None or value.ndim != 2:  # noqa: PLR2004 - a matrix has two
            raise BadRequestError(f"adapter {name} holds {key}, which is no weight of a plain LoRA adapter")
        if not np.isfinite(value).all():
            raise BadRequestError(f"adapter {name}: {key} holds numbers that are not finite")
        matrices[match["module"], match["part"]] = value
    if not matrices:
        raise BadRequestError(f"adapter {name}: {path} holds no weights")
    return matrices


def _load(name: str, path: Path) -> dict[str, Matrix]:
    """Every tensor as FP32. NumPy has no type for BF16, in which adapters often come, so the bytes are read by hand."""
    read: Any = deserialize  # untyped where safetensors is installed
    try:
        return {key: _as_float32(tensor) for key, tensor in read(path.read_bytes())}
    except (SafetensorError, KeyError) as error:
        raise BadRequestError(f"adapter {name}: {path} can't be read: {error}") from error


def _as_float32(tensor: Mapping[str, Any]) -> Matrix:
    data, kind = tensor["data"], tensor["dtype"]
    if kind == "BF16":  # the upper half of an FP32
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, _NUMPY_TYPES[kind]).astype(np.float32)
    return values.reshape(tensor["shape"])


def _pair(name: str, config: Mapping[str, Any], module: str, matrices: Mapping[tuple[str, str], Matrix]) -> LoraPair:
    try:
        down, up = matrices[module, "A"], matrices[module, "B"]
    except KeyError as error:
        raise BadRequestError(f"adapter {name} holds only one half of {module}") from error
    rank = down.shape[0]
    if rank < 1 or up.shape[1] != rank:
        raise BadRequestError(f"adapter {name}: {module} has the shapes {down.shape} and {up.shape}, which do not fit")
    scaled = (up.T * np.float32(_scale(name, config, module, rank))).astype(np.float32)
    return LoraPair(down=np.ascontiguousarray(down.T, dtype=np.float32), up=np.ascontiguousarray(scaled))


def _scale(name: str, config: Mapping[str, Any], module: str, rank: int) -> float:
    if rank != _by_pattern(config, "rank_pattern", "r", module):
        raise BadRequestError(f"adapter {name}: {module} is of rank {rank}, and adapter_config.json says otherwise")
    alpha = _by_pattern(config, "alpha_pattern", "lora_alpha", module)
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise BadRequestError(f"adapter {name}: lora_alpha is {alpha!r}; it must be a number")
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _by_pattern(config: Mapping[str, Any], patterns: str, default: str, module: str) -> Any:  # noqa: ANN401 - JSON, checked above
    """The value of the first pattern that fits the end of the module's name, as PEFT takes it, else the common one."""
    for pattern, value in (config.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return config.get(default)
