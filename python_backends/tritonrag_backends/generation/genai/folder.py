"""What a folder for ONNX Runtime GenAI says about its model; read without the library."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonrag_backends.generation.genai.format import ADAPTER_FOLDER, MANIFEST_FILE, GeneratorManifest
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError

CONFIG_FILE: Final = "genai_config.json"
TOKENIZER_FILE: Final = "tokenizer.json"
_MIB: Final = 1 << 20
_WAY_OUT: Final = "write one with: tritonrag export generator --output DIR, or set TRITONRAG_GENAI_MODEL"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """`context_tokens` bounds prompt and answer together; `dynamic`: the model batches by itself (paged attention).

    `top_p` and `top_k` are the model's own for sampling; top_k 0 where it names none.
    """

    path: Path
    name: str
    fingerprint: str
    context_tokens: int
    vocab_size: int
    eos_ids: tuple[int, ...]
    dynamic: bool
    top_p: float
    top_k: int
    adapters: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, *, verify: bool = True) -> "ModelFolder":
        """Read it. With a `generator.json` of ours its files are held to their SHA-256.

        Raises NotFoundError where there is no such model, BadRequestError or InternalError where it can't be read.
        """
        config = _read_config(path)
        manifest = GeneratorManifest.load(path, verify=verify) if (path / MANIFEST_FILE).is_file() else None
        adapters = sorted(file.name.removesuffix(".onnx_adapter") for file in _adapter_files(path))
        try:
            model, search = config["model"], config["search"]
            eos = model["eos_token_id"]
            top_k = int(search.get("top_k", 0))
            return cls(
                path=path,
                name=manifest.name if manifest else path.absolute().name,
                fingerprint=manifest.fingerprint if manifest else _fingerprint(path),
                context_tokens=min(
                    int(model["context_length"]), int(search.get("max_length", model["context_length"]))
                ),
                vocab_size=int(model["vocab_size"]),
                eos_ids=tuple(eos) if isinstance(eos, list) else (int(eos),),
                dynamic="dynamic_batching" in config.get("engine", {}),
                top_p=float(search.get("top_p", 1.0)) or 1.0,
                top_k=top_k
                if top_k > 1
                else 0,  # 1 is how greedy models are marked: with it a temperature would do nothing
                adapters=manifest.adapters if manifest else tuple(adapters),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InternalError(
                f"{path / CONFIG_FILE} can't be read as a language model's: {error!r}; {_WAY_OUT}"
            ) from error

    def require_execution(self, execution: str) -> None:
        """Raises BadRequestError where the folder was exported for another execution: a graph for CUDA can't run on a CPU."""
        if not (self.path / MANIFEST_FILE).is_file():
            return
        made_for = GeneratorManifest.load(self.path, verify=False).execution
        if made_for == "cuda" and execution != "cuda":
            raise BadRequestError(
                f"the language model in {self.path} was exported for cuda, and TRITONRAG_GENAI_EXECUTION is {execution!r};"
                " set it to cuda, or export again with --execution cpu"
            )


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise NotFoundError(f"there is no language model at {path}; {_WAY_OUT}")
    for name in (CONFIG_FILE, TOKENIZER_FILE):
        if not (path / name).is_file():
            raise NotFoundError(f"{path} is no language model for ONNX Runtime GenAI: it holds no {name}; {_WAY_OUT}")
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InternalError(f"{path / CONFIG_FILE} is damaged: it is not JSON; {_WAY_OUT}") from error
    if not isinstance(config, dict):
        raise InternalError(f"{path / CONFIG_FILE} is damaged: it is not a JSON object; {_WAY_OUT}")
    return config


def _adapter_files(path: Path) -> list[Path]:
    return list((path / ADAPTER_FOLDER).glob("*.onnx_adapter"))


def _fingerprint(path: Path) -> str:
    """SHA-256 over what decides an answer; of the weights, which may be many GB, their sizes, first and last MiB."""
    digest = hashlib.sha256()
    for file in sorted(file for file in (*path.iterdir(), *_adapter_files(path)) if file.is_file()):
        if file.suffix not in {".json", ".jinja", ".onnx", ".data", ".onnx_adapter", ".model"}:
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as content:
            digest.update(content.read(_MIB))
            content.seek(max(size - _MIB, 0))
            digest.update(content.read(_MIB))
    return digest.hexdigest()
