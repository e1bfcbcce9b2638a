"""The folder that `tritonrag export embedder` writes and that serving reads.

    embedder.json      this module's manifest, as JSON
    tokenizer.json     Hugging Face tokenizers, byte for byte as the model's author published it
    model.fp32.onnx    the encoder in operators that every runtime reads (TensorRT too)
    model.int8.onnx    the same encoder, weights INT8 per channel, in the operators that ONNX Runtime runs fastest on a CPU

Both graphs take packed rows (several texts in one row) and give unit vectors:

    input_ids    INT64 [rows, row_tokens]   vocabulary ids; 0 in the places that no text fills
    position_ids INT64 [rows, row_tokens]   0, 1, 2, ... inside each text
    text_ids     INT64 [rows, row_tokens]   which text a token belongs to, 1..texts; 0 = no text
    text_index   INT64 [texts]              1..texts
    embedding    FP32  [texts, dim]         unit length, row i is text i + 1

An ordinary padded batch is the case of one text per row.

The fingerprint is the identity of the vector space: two embedders with the same one may share an index. It covers weights,
architecture, tokenizer, pooling, `max_tokens` and normalisation, and not the precision: int8 and fp32 share a space.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError

FORMAT_VERSION: Final = 1
MANIFEST_FILE: Final = "embedder.json"
TOKENIZER_FILE: Final = "tokenizer.json"

Precision = Literal["int8", "fp32"]
Pooling = Literal["mean", "cls"]
MODEL_FILES: Final[Mapping[Precision, str]] = {"int8": "model.int8.onnx", "fp32": "model.fp32.onnx"}

_WAY_OUT = "write one with: tritonrag export embedder --output DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What a file must be: its length and the SHA-256 of its bytes (hex)."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How close the exported graphs came to a float64 reference when they were made.

    `fp32_max_abs_difference` is over all elements of all vectors in every layout (alone, padded, packed);
    `int8_min_cosine` and `int8_mean_cosine` are against the same reference.
    """

    texts: int
    fp32_max_abs_difference: float
    int8_min_cosine: float
    int8_mean_cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderManifest:
    """What is in an embedder folder. `dim` in elements, `max_tokens` with the two special tokens, `fingerprint` in hex."""

    name: str
    architecture: str
    dim: int
    max_tokens: int
    pooling: Pooling
    fingerprint: str
    files: Mapping[str, FileRecord]
    parity: Parity
    format_version: int = FORMAT_VERSION

    def save(self, directory: Path) -> None:
        """Write `embedder.json` into the folder."""
        (directory / MANIFEST_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *, verify: bool = True) -> "EmbedderManifest":
        """Read the manifest and, unless told otherwise, hold every file to its SHA-256 (0.1 s per 150 MB).

        Raises NotFoundError where there is no embedder, BadRequestError where it is of another format,
        InternalError where it is damaged.
        """
        manifest = _parse(directory, _read(directory))
        if verify:
            manifest.verify(directory, manifest.files)
        return manifest

    def verify(self, directory: Path, names: Collection[str]) -> None:
        """Hold the named files to their records. Raises NotFoundError (missing) or InternalError (damaged, unrecorded)."""
        for name in names:
            if name not in self.files:
                raise InternalError(f"the embedder in {directory} records no {name}; {_WAY_OUT}")
            path = directory / name
            if not path.is_file():
                raise NotFoundError(f"the embedder in {directory} lacks its file {name}; {_WAY_OUT}")
            if record_file(path) != self.files[name]:
                raise InternalError(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST_FILE}; {_WAY_OUT}")


def record_file(path: Path) -> FileRecord:
    """Length and SHA-256 of a file as it lies on disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(bytes=path.stat().st_size, sha256=digest)


def _read(directory: Path) -> str:
    if not directory.is_dir():
        raise NotFoundError(f"there is no embedder folder at {directory}; {_WAY_OUT}")
    path = directory / MANIFEST_FILE
    if not path.is_file():
        raise NotFoundError(f"{directory} is not an embedder folder: it holds no {MANIFEST_FILE}; {_WAY_OUT}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InternalError(f"{path} is damaged: it is not UTF-8; {_WAY_OUT}") from error


def _parse(directory: Path, text: str) -> EmbedderManifest:
    path = directory / MANIFEST_FILE
    try:
        fields: dict[str, Any] = json.loads(text)
        version = fields["format_version"]
        if version != FORMAT_VERSION:
            raise BadRequestError(
                f"{path} is of format {version!r}, and this program reads format {FORMAT_VERSION}; {_WAY_OUT}"
            )
        fields["files"] = {name: FileRecord(**record) for name, record in fields["files"].items()}
        fields["parity"] = Parity(**fields["parity"])
        manifest = EmbedderManifest(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InternalError(f"{path} is damaged: it can't be read as a manifest; {_WAY_OUT}") from error
    if manifest.pooling not in get_args(Pooling):
        raise InternalError(f"{path} is damaged: pooling is {manifest.pooling!r}; {_WAY_OUT}")
    return manifest
