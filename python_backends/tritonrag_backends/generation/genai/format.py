"""The folder that `tritonrag export generator` writes for ONNX Runtime GenAI and that serving reads.

    generator.json                 this module's manifest, as JSON
    genai_config.json              ONNX Runtime GenAI's own description of the model
    model.onnx, model.onnx.data    the decoder and its weights
    tokenizer.json, tokenizer_config.json, chat_template.jinja    as transformers writes them
    adapters/NAME.onnx_adapter     one file for each LoRA adapter; the graph takes their weights as inputs and has zeros for them

The fingerprint is the identity of what the folder answers: two folders with the same one give the same tokens for the same
prompt and seed on the same machine. It covers every file (graph, weights, tokenizer, chat template, adapters), so the same
checkpoint in another precision has another one.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tritonrag_backends.model_folder import FileRecord, FolderKind, records_of
from tritonrag_client.errors import BadRequestError

FORMAT_VERSION: Final = 1
MANIFEST_FILE: Final = "generator.json"
ADAPTER_FOLDER: Final = "adapters"

Precision = Literal["int4", "int8", "fp16", "fp32"]
Execution = Literal["cpu", "cuda"]

_ADAPTER_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ADAPTER_ENDING: Final = ".onnx_adapter"
_KIND: Final = FolderKind(
    article="a",
    noun="generator",
    manifest_file=MANIFEST_FILE,
    format_version=FORMAT_VERSION,
    way_out="write one with: tritonrag export generator --output DIR",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How close the exported graph came to transformers in FP32 when it was made, over `prompts` prompts and their answers.

    `positions` logit vectors were compared, both sides given the same tokens: `max_abs_logit_difference` is over all of
    them, `equal_tokens` is the share (0 to 1) whose likeliest token is the same. `equal_answers` of the greedy answers,
    each side going on from its own tokens, were the same to the end.
    """

    prompts: int
    positions: int
    max_abs_logit_difference: float
    equal_tokens: float
    equal_answers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorManifest:
    """What is in a generator folder. `context_tokens` is the longest prompt with its answer, `fingerprint` in hex.

    `parity` is None where it could not be measured (a model for CUDA); `adapter_parity` has the same by adapter.
    """

    name: str
    architecture: str
    precision: Precision
    execution: Execution
    context_tokens: int
    vocab_size: int
    adapters: tuple[str, ...]
    fingerprint: str
    files: Mapping[str, FileRecord]
    parity: Parity | None
    adapter_parity: Mapping[str, Parity]
    format_version: int = FORMAT_VERSION

    def save(self, directory: Path) -> None:
        """Write `generator.json` into the folder."""
        (directory / MANIFEST_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *, verify: bool = True) -> "GeneratorManifest":
        """Read the manifest and, unless told otherwise, hold every file to its SHA-256 (0.1 s per 150 MB).

        Raises NotFoundError where there is no generator, BadRequestError where it is of another format,
        InternalError where it is damaged.
        """
        manifest = _KIND.read(directory, _build)
        if verify:
            manifest.verify(directory, manifest.files)
        return manifest

    def verify(self, directory: Path, names: Collection[str]) -> None:
        """Hold the named files to their records. Raises NotFoundError (missing) or InternalError (damaged, unrecorded)."""
        _KIND.verify(directory, self.files, names)


def adapter_file(name: str) -> str:
    """Where an adapter's weights lie below the folder."""
    return f"{ADAPTER_FOLDER}/{name}{_ADAPTER_ENDING}"


def check_adapter_name(name: str) -> None:
    """Raises BadRequestError for a name that could not be a file's or a request's: it becomes both."""
    if not _ADAPTER_NAME.fullmatch(name) or name in {".", ".."}:
        raise BadRequestError(
            f"the adapter's name is {name!r}; use 1 to 64 letters, digits, dots, underscores and hyphens"
        )


def fingerprint_of(files: Mapping[str, FileRecord]) -> str:
    """SHA-256 over the names and digests of the files, whatever their order."""
    lines = sorted(f"{name}\0{record.sha256}\n" for name, record in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _build(fields: dict[str, Any]) -> GeneratorManifest:
    read = {
        "files": records_of(fields),
        "parity": None if fields["parity"] is None else Parity(**fields["parity"]),
        "adapter_parity": {name: Parity(**parity) for name, parity in fields["adapter_parity"].items()},
        "adapters": tuple(fields["adapters"]),
    }
    manifest = GeneratorManifest(**{**fields, **read})
    _check(manifest)
    return manifest


def _check(manifest: GeneratorManifest) -> None:
    """Raises ValueError for a field that no exporter of ours would write; serving makes paths of the names."""
    if manifest.precision not in get_args(Precision) or manifest.execution not in get_args(Execution):
        raise ValueError(f"precision {manifest.precision!r}, execution {manifest.execution!r}")
    if manifest.context_tokens < 1 or manifest.vocab_size < 1:
        raise ValueError(f"context_tokens {manifest.context_tokens!r}, vocab_size {manifest.vocab_size!r}")
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in manifest.files):
        raise ValueError("a file outside of the folder")
    for name in manifest.adapters:
        if not _ADAPTER_NAME.fullmatch(name) or adapter_file(name) not in manifest.files:
            raise ValueError(f"adapter {name!r}")
