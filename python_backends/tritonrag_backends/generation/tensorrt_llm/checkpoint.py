"""The folder that TensorRT-LLM loads: what it is, and what can be told of it without the library."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tritonrag_client.errors import BadRequestError, NotFoundError

_MODEL: Final = "TRITONRAG_TRTLLM_MODEL"
_ENDS_BYTES: Final = 2**20  # of each weight file these many at both ends are hashed: whole, they are hundreds of GB
_SMALL: Final = (".json", ".jinja", ".model", ".txt")  # configuration and tokenizers: hashed whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model's folder. `kind` engine: built by trtllm-build; hf: a checkpoint in Hugging Face's layout, plain or quantised.

    `context_tokens` None: the folder does not say. `eos_ids`: tokens that end an answer, as generation_config.json has them.
    """

    folder: Path
    kind: Literal["hf", "engine"]
    context_tokens: int | None
    eos_ids: tuple[int, ...]
    fingerprint: str

    @classmethod
    def find(cls, folder: Path | None) -> "Checkpoint":
        """Raises BadRequestError where no folder is set or it holds no model, NotFoundError where there is none."""
        if folder is None:
            raise BadRequestError(f"the tensorrt_llm engine has no model; set {_MODEL} to a checkpoint's folder")
        if not folder.is_dir():
            raise NotFoundError(f"{_MODEL} names no folder; download or export the checkpoint there first")
        config = _read_json(folder / "config.json")
        if not config:
            raise BadRequestError(
                f"the folder of {_MODEL} has no readable config.json; it must be a model's checkpoint"
            )
        kind: Literal["hf", "engine"] = "engine" if (folder / "rank0.engine").is_file() else "hf"
        if kind == "hf" and not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
            raise BadRequestError(
                f"the folder of {_MODEL} has neither weights (*.safetensors) nor an engine (rank0.engine)"
            )
        return cls(
            folder=folder,
            kind=kind,
            context_tokens=_context_tokens(config),
            eos_ids=_eos_ids(_read_json(folder / "generation_config.json")),
            fingerprint=_fingerprint(folder),
        )

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer lies beside the model."""
        return any((self.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _context_tokens(config: dict[str, Any]) -> int | None:
    places = (
        (config.get("build_config"), "max_seq_len"),  # of an engine
        (config, "max_position_embeddings"),
        (config.get("text_config"), "max_position_embeddings"),  # of a model that sees, too
    )
    for holder, name in places:
        if isinstance(holder, dict) and isinstance(holder.get(name), int):
            return int(holder[name])
    return None


def _eos_ids(generation: dict[str, Any]) -> tuple[int, ...]:
    ids = generation.get("eos_token_id")
    return tuple(ids) if isinstance(ids, list) else (ids,) if isinstance(ids, int) else ()


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if path.suffix in _SMALL or size <= 2 * _ENDS_BYTES:
                digest.update(file.read())
            else:
                digest.update(file.read(_ENDS_BYTES))
                file.seek(-_ENDS_BYTES, 2)
                digest.update(file.read())
    return digest.hexdigest()
