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

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tritonrag_backends.model_folder import FileRecord, FolderKind, records_of

FORMAT_VERSION: Final = 1
MANIFEST_FILE: Final = "embedder.json"
TOKENIZER_FILE: Final = "tokenizer.json"

Precision = Literal["int8", "fp32"]
Pooling = Literal["mean", "cls"]
MODEL_FILES: Final[Mapping[Precision, str]] = {"int8": "model.int8.onnx", "fp32": "model.fp32.onnx"}

_KIND: Final = FolderKind(
    article="an",
    noun="embedder",
    manifest_file=MANIFEST_FILE,
    format_version=FORMAT_VERSION,
    way_out="write one with: tritonrag export embedder --output DIR",
)


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
        manifest = _KIND.read(directory, _build)
        if verify:
            manifest.verify(directory, manifest.files)
        return manifest

    def verify(self, directory: Path, names: Collection[str]) -> None:
        """Hold the named files to their records. Raises NotFoundError (missing) or InternalError (damaged, unrecorded)."""
        _KIND.verify(directory, self.files, names)


def _build(fields: dict[str, Any]) -> EmbedderManifest:
    """Raises ValueError, TypeError or KeyError for what no exporter of ours would write."""
    records, parity = records_of(fields), Parity(**fields["parity"])
    manifest = EmbedderManifest(**{**fields, "files": records, "parity": parity})
    if manifest.pooling not in get_args(Pooling):
        raise ValueError(f"pooling is {manifest.pooling!r}")
    return manifest
