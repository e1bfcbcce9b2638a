"""LoRA adapters in a folder: one PEFT adapter a subfolder, its name the `lora_name` of requests."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonrag_backends.generation.tensorrt_llm.settings import TrtllmSettings
from tritonrag_client.errors import BadRequestError, NotFoundError

_CONFIG: Final = "adapter_config.json"
# The library's names of the layers that an adapter may change (get_default_trtllm_modules_to_hf_modules, dense models).
_MODULES: Final[Mapping[str, str]] = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "qkv_proj": "attn_qkv",
    "o_proj": "attn_dense",
    "gate_proj": "mlp_h_to_4h",
    "down_proj": "mlp_4h_to_h",
    "up_proj": "mlp_gate",
    "gate_up_proj": "mlp_gate_up",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One adapter. `number` is the library's id of it, from 1 in the order of names; `modules` are named as the library does."""

    name: str
    number: int
    folder: Path
    rank: int
    modules: tuple[str, ...]
    digest: str


def read_adapters(settings: TrtllmSettings) -> tuple[Adapter, ...]:
    """The adapters of `lora_dir`, by name; none without it.

    Raises NotFoundError where the folder is missing or holds none, BadRequestError for an adapter that can't be served and
    for LoRA limits without `lora_dir`.
    """
    if settings.lora_dir is None:
        if settings.max_loras or settings.max_cpu_loras or settings.max_lora_rank:
            raise BadRequestError(
                "max_loras, max_cpu_loras and max_lora_rank need TRITONRAG_TRTLLM_LORA_DIR; set it too"
            )
        return ()
    folder = settings.lora_dir
    if not folder.is_dir():
        raise NotFoundError("TRITONRAG_TRTLLM_LORA_DIR names no folder; it holds one folder for each PEFT adapter")
    found = sorted(path.parent for path in folder.glob(f"*/{_CONFIG}"))
    if not found:
        raise NotFoundError(f"the folder of TRITONRAG_TRTLLM_LORA_DIR has no adapter, that is no */{_CONFIG}")
    adapters = tuple(_read(path, number) for number, path in enumerate(found, start=1))
    _check_ranks(adapters, settings.max_lora_rank)
    return adapters


def target_modules(adapters: Sequence[Adapter]) -> list[str]:
    """Every layer that one of them changes, sorted."""
    return sorted({module for adapter in adapters for module in adapter.modules})


def _read(folder: Path, number: int) -> Adapter:
    text = (folder / _CONFIG).read_bytes()
    try:
        config = json.loads(text)
        rank, targets = int(config["r"]), config["target_modules"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequestError(f"the {_CONFIG} of adapter {folder.name!r} is none of PEFT's: {error!r}") from error
    if config.get("use_dora"):
        raise BadRequestError(f"adapter {folder.name!r} uses DoRA, which is not served; train it without use_dora")
    unknown = [name for name in targets if name not in _MODULES] if isinstance(targets, list) else [targets]
    if unknown:
        raise BadRequestError(
            f"adapter {folder.name!r} changes {unknown}; what can be changed is {', '.join(_MODULES)}: list those by name"
        )
    return Adapter(
        name=folder.name,
        number=number,
        folder=folder,
        rank=rank,
        modules=tuple(_MODULES[name] for name in targets),
        digest=_digest(folder),
    )


def _digest(folder: Path) -> str:
    """Over all of the adapter's files: they are small, and another training leaves the same names and sizes."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _check_ranks(adapters: Sequence[Adapter], limit: int) -> None:
    for adapter in adapters:
        if limit and adapter.rank > limit:
            raise BadRequestError(
                f"adapter {adapter.name!r} has rank {adapter.rank}, and TRITONRAG_TRTLLM_MAX_LORA_RANK is {limit}; raise it"
            )
