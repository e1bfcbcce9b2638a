"""The index on disk: the one place that knows its names, its records and its version.

    DIR/CURRENT                          one line: the file name of the live manifest; replaced by an atomic rename, last of all
    DIR/LOCK                             held (flock) by the one process that publishes
    DIR/MERGING                          held (flock) by the one process that merges segments, which may take long
    DIR/manifests/00000001-<digest>.json one per index version; <digest> begins the sha256 of the file, so a manifest that was
                                         damaged, or a CURRENT that was, is known before a value of it is used
    DIR/segments/000001/                 passages, immutable:
      passages.bin                       the passages' wire JSON (tritonrag_client.contract.Passage), one after the other
      offsets.npy                        INT64 [rows + 1]: passage i is passages.bin[offsets[i]:offsets[i + 1]]
      vectors.npy                        FP32, FP16 or INT8 [rows, dims], unit length: exact search, re-scoring, merging
      scales.npy                         INT8 vectors alone, FP32 [rows]: the vector is scale * row
      ann.faiss                          every kind but flat: the FAISS index whose finds are re-scored by vectors.npy
      fields.{keys.bin,key_offsets.npy,starts.npy,rows.npy}             which rows have which metadata value, tenant, document
      terms.{keys.bin,key_offsets.npy,starts.npy,rows.npy,counts.npy}   which rows hold which word, how often (BM25)
      lengths.npy                        UINT32 [rows]: words of each passage (BM25)
    DIR/shared/                          files that manifests name besides segments, immutable, `<what>-<digest>.npy`:
      tombstones-<digest>.npy            UINT8 [rows / 8, rounded up]: bit i (little endian) set: row i is deleted
      projection-<digest>.npy            FP32 [dim, dims]: a query's embedding is multiplied by it (--dims by PCA)
      queries-<digest>.npy               FP32 [n, dim]: the held-out queries to which the search effort was tuned
    DIR/staging/                         what is being written; nothing there is ever read, the next writer sweeps it
    DIR/resume/                          embeddings of a build that was broken off, so that they are not made again

All but CURRENT and the locks is immutable. A passage's id is `segment.number << 32 | row`; numbers are never used twice, so an id
means the same passage in every version that holds it. Postings are described in `postings.py`. No pickle anywhere.
A reader knows exactly one FORMAT_VERSION and refuses any other; keys that it does not know are refused too, never ignored.
Reading and writing a manifest's JSON: `manifest_json.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

from tritonrag_backends.choices import Kind, KindChoice, Reduction, VectorType
from tritonrag_client.contract import Mode

FORMAT_VERSION: Final = 2
CURRENT: Final = "CURRENT"
LOCK: Final = "LOCK"
MERGING: Final = "MERGING"
MANIFESTS: Final = "manifests"
SEGMENTS: Final = "segments"
SHARED: Final = "shared"
STAGING: Final = "staging"
RESUME: Final = "resume"

PASSAGES_FILE: Final = "passages.bin"
OFFSETS_FILE: Final = "offsets.npy"
VECTORS_FILE: Final = "vectors.npy"
SCALES_FILE: Final = "scales.npy"
ANN_FILE: Final = "ann.faiss"
LENGTHS_FILE: Final = "lengths.npy"
FIELDS: Final = "fields"
TERMS: Final = "terms"
POSTINGS_PARTS: Final = ("keys.bin", "key_offsets.npy", "starts.npy", "rows.npy")
COUNTS_PART: Final = "counts.npy"

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
KIND_CHOICES: Final[tuple[KindChoice, ...]] = get_args(KindChoice)
VECTOR_TYPES: Final[tuple[VectorType, ...]] = get_args(VectorType)
REDUCTIONS: Final[tuple[Reduction, ...]] = get_args(Reduction)
MODES: Final[tuple[Mode, ...]] = get_args(Mode)

ROW_BITS: Final = 32
MOST_ROWS: Final = 2**31 - 1
MOST_SEGMENTS: Final = 2**31 - 1  # ids stay positive in INT64
MOST_DIM: Final = 65_536
MOST_VERSIONS: Final = 99_999_999
ADVICE: Final = (
    "go back to an older version with `tritonrag index rollback`, or build again with `tritonrag index build`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What a file must be: its size and the hexadecimal sha256 of its bytes."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFile:
    """A file in `shared/`. Its name is `<what>-<the first 16 digits of its sha256>.npy`."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRecord:
    """Which model made the vectors, and from what text: `template` is filled with a passage's title and text.

    `dim` is the model's own, that of a query; stored vectors may be shorter (VectorRecord.dims).
    """

    name: str
    fingerprint: str
    dim: int
    precision: str
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorRecord:
    """How vectors are stored. `recall_at_10` is what exact search over them finds of that over the model's own; None: untold.

    `projection` is there with reduction pca alone.
    """

    type: VectorType
    dims: int
    reduction: Reduction
    projection: SharedFile | None = None
    recall_at_10: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """What was chosen when the index was built; later additions and merges keep to it.

    `fields` None: every metadata key with filterable values can be filtered by. `analyzer` is `analysis.Analyzer.name`, a language
    and the version of the rules by which texts become words.
    """

    kind: KindChoice
    recall_target: float
    mode: Mode
    analyzer: str
    fields: tuple[str, ...] | None

    @property
    def language(self) -> str:
        """A Snowball stemmer's name, or "none"."""
        return self.analyzer.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """How a segment is searched: `effort` is efSearch or nprobe (0: exact), `rescore` the candidates re-scored per wanted passage.

    `recall_at_10` was reached on `queries` held-out queries against exact search over the stored vectors; None: never measured.
    """

    effort: int
    rescore: int
    recall_at_10: float | None
    queries: int


EXACT: Final = OperatingPoint(effort=0, rescore=1, recall_at_10=1.0, queries=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstones:
    """The deleted rows of a segment, `rows` of them."""

    file: SharedFile
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRecord:
    """An immutable segment. Its directory is `segments/<id>`, its passages' ids are `number << 32 | row`.

    `fields` can be filtered by; `unfilterable` are metadata keys with a value that can't be (an object, a very long string).
    """

    id: str
    number: int
    rows: int
    kind: Kind
    files: Mapping[str, FileRecord]
    point: OperatingPoint
    fields: tuple[str, ...]
    unfilterable: tuple[str, ...]
    tombstones: Tombstones | None = None

    @property
    def live_rows(self) -> int:
        """Rows that are not deleted."""
        return self.rows - (self.tombstones.rows if self.tombstones else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the version holds, and how many documents could not be read when it was built."""

    documents: int
    passages: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One version of the index. `created_at` is ISO 8601 in UTC, `cause` the command that made it. No segments: an empty index.

    `last_segment` is the highest number that a segment ever had here, so that none is used twice.
    """

    index_version: int
    last_segment: int
    created_at: str
    cause: str
    embedding: EmbeddingRecord
    vectors: VectorRecord
    options: IndexOptions
    segments: tuple[SegmentRecord, ...]
    counts: Counts
    queries: SharedFile | None = None

    @property
    def shared_files(self) -> tuple[SharedFile, ...]:
        """Every file in `shared/` that this version needs."""
        tombstones = [segment.tombstones.file for segment in self.segments if segment.tombstones]
        return tuple(file for file in (self.vectors.projection, self.queries, *tombstones) if file)

    @property
    def recall_at_10(self) -> float | None:
        """The least that a segment reached; None where one was never measured."""
        reached = [segment.point.recall_at_10 for segment in self.segments]
        known = [recall for recall in reached if recall is not None]
        return min(known, default=1.0) if len(known) == len(reached) else None


def segment_id(number: int) -> str:
    """The directory's name of the segment with this number."""
    return f"{number:06d}"


def postings_files(name: str, *, counts: bool) -> tuple[str, ...]:
    """The files of the postings `name`."""
    return tuple(f"{name}.{part}" for part in (*POSTINGS_PARTS, *((COUNTS_PART,) if counts else ())))


def segment_files(kind: Kind, vectors: VectorType) -> frozenset[str]:
    """The files that a segment consists of."""
    files = {PASSAGES_FILE, OFFSETS_FILE, VECTORS_FILE, LENGTHS_FILE}
    files |= {*postings_files(FIELDS, counts=False), *postings_files(TERMS, counts=True)}
    return frozenset(
        files | ({ANN_FILE} if kind != "flat" else set()) | ({SCALES_FILE} if vectors == "int8" else set())
    )
