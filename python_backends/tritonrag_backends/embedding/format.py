"""The folder that `tritonrag export embedder` writes and that serving reads.

    embedder.json      this module's manifest, as JSON
    tokenizer.json     Hugging Face tokenizers, byte for byte as the model's author published it
    model.fp32.onnx    the encoder in operators that every runtime reads (TensorRT too)
    model.int8.onnx    the same encoder, weights INT8 per channel, in the operators that ONNX Runtime runs fastest on a CPU;
                       left out where the model does not bear it
    encoder.fp16.onnx  optional, for GPUs: weights and products FP16, all sums FP32 (below)
    encoder.plan       optional, for one kind of GPU: the engine that TensorRT built of encoder.fp16.onnx, with the same tensors

The two `model` graphs take packed rows (several texts in one row) and give unit vectors:

    input_ids    INT64 [rows, row_tokens]   vocabulary ids; 0 in the places that no text fills
    position_ids INT64 [rows, row_tokens]   0, 1, 2, ... inside each text
    text_ids     INT64 [rows, row_tokens]   which text a token belongs to, 1..texts; 0 = no text
    text_index   INT64 [texts]              1..texts
    embedding    FP32  [texts, dim]         unit length, row i is text i + 1

An ordinary padded batch is the case of one text per row, and all that `encoder` knows:

    input_ids      INT32 [batch, tokens]   a text a row, padded on the right; what the padding holds does not matter
    attention_mask INT32 [batch, tokens]   1 for a token of the text, 0 for padding
    embedding      FP32  [batch, dim]      unit length

A text is embedded as a query or as a passage: its prefix goes before it, byte for byte. Most models have none.

The fingerprint is the identity of the vector space: two embedders with the same one may share an index. It covers weights,
architecture, tokenizer, pooling, `max_tokens`, normalisation and prefixes, and not the precision: int8, fp32 and fp16 share
a space.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tritonrag_backends.model_folder import FileRecord, FolderKind, records_of
from tritonrag_client.contract import InputType

FORMAT_VERSION: Final = 1
MANIFEST_FILE: Final = "embedder.json"
TOKENIZER_FILE: Final = "tokenizer.json"
ENCODER_FILE: Final = "encoder.fp16.onnx"
PLAN_FILE: Final = "encoder.plan"

Precision = Literal["int8", "fp32"]
Pooling = Literal["mean", "cls", "last"]
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
    The cosines (None: there is no such graph) are against the same reference; the FP16 graph was run on a CPU, texts alone and
    padded.
    """

    texts: int
    fp32_max_abs_difference: float
    int8_min_cosine: float | None
    int8_mean_cosine: float | None
    fp16_min_cosine: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecord:
    """What `encoder.plan` was built by and for; TensorRT loads it with this version and on this kind of GPU alone.

    `buckets` are the longest texts in tokens of its optimisation profiles, ascending; `max_batch` the rows of one call.
    """

    tensorrt: str
    gpu: str
    compute_capability: str
    buckets: tuple[int, ...]
    max_batch: int


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
    query_prefix: str = ""
    passage_prefix: str = ""
    plan: PlanRecord | None = None
    format_version: int = FORMAT_VERSION

    def prefix(self, input_type: InputType) -> str:
        """What goes before a text that is embedded as a query or as a passage."""
        return self.passage_prefix if input_type == "passage" else self.query_prefix

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
    read: dict[str, Any] = {"files": records_of(fields), "parity": Parity(**fields["parity"])}
    if fields.get("plan") is not None:
        read["plan"] = PlanRecord(**{**fields["plan"], "buckets": tuple(fields["plan"]["buckets"])})
    manifest = EmbedderManifest(**{**fields, **read})
    if manifest.pooling not in get_args(Pooling):
        raise ValueError(f"pooling is {manifest.pooling!r}")
    for prefix in (manifest.query_prefix, manifest.passage_prefix):
        if not isinstance(prefix, str):
            raise TypeError(f"a prefix is {prefix!r}")
    return manifest
