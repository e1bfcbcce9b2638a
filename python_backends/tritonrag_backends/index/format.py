"""The index on disk: the one place that knows its names, its manifest and its versions.

    DIR/CURRENT                          one line: the file name of the live manifest; replaced by an atomic rename, last of all
    DIR/LOCK                             held (flock) by the one process that writes
    DIR/manifests/00000001-<digest>.json one per index version; <digest> begins the sha256 of the file, so a manifest that was
                                         damaged, or a CURRENT that was, is known before a value of it is used
    DIR/segments/000001/vectors.npy      FP32 [rows, dim], unit length, C order: exact search, re-scoring, merging
                        passages.bin     the passages' wire JSON (tritonrag_client.contract.Passage), one after the other
                        offsets.npy      INT64 [rows + 1]: passage i is passages.bin[offsets[i]:offsets[i + 1]]
                        graph.faiss      kind hnsw alone: FAISS HNSW over 8-bit vectors; its finds are re-scored exactly
    DIR/staging/                         what is being written; nothing there is ever read, the next writer sweeps it

All but CURRENT and LOCK is immutable. A passage's id is `segment.number << 32 | row`; numbers are never used twice, so an id means
the same passage in every version that holds it. No pickle anywhere. Rollback: write an older manifest's name into CURRENT.
A reader knows exactly one FORMAT_VERSION and refuses any other; keys that it does not know are refused too, never ignored.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Literal, get_args

from tritonrag_backends.index.strict_json import StrictObject
from tritonrag_client.errors import InternalError

FORMAT_VERSION: Final = 1
CURRENT: Final = "CURRENT"
LOCK: Final = "LOCK"
MANIFESTS: Final = "manifests"
SEGMENTS: Final = "segments"
STAGING: Final = "staging"
VECTORS_FILE: Final = "vectors.npy"
PASSAGES_FILE: Final = "passages.bin"
OFFSETS_FILE: Final = "offsets.npy"
GRAPH_FILE: Final = "graph.faiss"

Kind = Literal["flat", "hnsw"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
FILES: Final[Mapping[Kind, frozenset[str]]] = {
    "flat": frozenset({VECTORS_FILE, PASSAGES_FILE, OFFSETS_FILE}),
    "hnsw": frozenset({VECTORS_FILE, PASSAGES_FILE, OFFSETS_FILE, GRAPH_FILE}),
}

ROW_BITS: Final = 32
MOST_ROWS: Final = 2**ROW_BITS - 1
MOST_SEGMENTS: Final = 2**31 - 1  # ids stay positive in INT64
MOST_DIM: Final = 65_536
MOST_VERSIONS: Final = 99_999_999
_MANIFEST_NAME = re.compile(r"(?P<version>[0-9]{8})-(?P<digest>[0-9a-f]{16})\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")
ADVICE: Final = (
    "put another manifest's name from `manifests/` into CURRENT to roll back, or build the index again with "
    "`tritonrag index build`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRecord:
    """Which model made the vectors, and from what text: `template` is filled with a passage's title and text."""

    name: str
    fingerprint: str
    dim: int
    precision: str
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What a file must be: its size and the hexadecimal sha256 of its bytes."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRecord:
    """An immutable segment. Its directory is `segments/<id>`, its passages' ids are `number << 32 | row`."""

    id: str
    number: int
    rows: int
    kind: Kind
    files: Mapping[str, FileRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """How the index is searched: graph search effort and candidates re-scored per wanted passage (0 where there is no graph)."""

    kind: Kind
    ef_search: int
    rescore: int
    recall_at_10: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the version holds, and how many documents could not be read when it was built."""

    documents: int
    passages: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One version of the index. `created_at` is ISO 8601 in UTC."""

    index_version: int
    created_at: str
    embedding: EmbeddingRecord
    segments: tuple[SegmentRecord, ...]
    operating_point: OperatingPoint
    counts: Counts

    def encode(self) -> bytes:
        """The file's bytes: the same manifest gives the same bytes."""
        body = {"format_version": FORMAT_VERSION, **asdict(self), "fields": {}, "tombstones": []}
        return json.dumps(body, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"

    @property
    def file_name(self) -> str:
        """The name that the manifest's file bears and that CURRENT holds."""
        return manifest_name(self.index_version, self.encode())


def segment_id(number: int) -> str:
    """The directory's name of the segment with this number."""
    return f"{number:06d}"


def manifest_name(version: int, data: bytes) -> str:
    """The file name of a manifest with this version and these bytes."""
    return f"{version:08d}-{hashlib.sha256(data).hexdigest()[:16]}.json"


def manifest_version(name: str) -> int | None:
    """The version in a manifest's file name; None where the name is none."""
    match = _MANIFEST_NAME.fullmatch(name)
    return int(match["version"]) if match else None


def decode_manifest(name: str, data: bytes) -> Manifest:
    """Read a manifest back. Raises InternalError that names the file, the place in it and the way out; trusts no value."""
    what = f"{MANIFESTS}/{name} can't be used"
    version = manifest_version(name)
    if version is None or manifest_name(version, data) != name:
        raise InternalError(f"{what}: its bytes are not those whose digest its name bears, so it was damaged; {ADVICE}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InternalError(f"{what}: it is not JSON; {ADVICE}") from error
    root = StrictObject(value, place="", what=what, advice=ADVICE)
    found = root.integer("format_version")
    if found != FORMAT_VERSION:
        raise InternalError(
            f"{what}: its format is {found} and this tritonrag reads {FORMAT_VERSION}; use the tritonrag that wrote it, "
            "or build the index again with `tritonrag index build`"
        )
    manifest = _manifest(root)
    if manifest.index_version != version:
        root.fail("index_version", manifest.index_version, f"{version} as in the file's name")
    return manifest


def _manifest(root: StrictObject) -> Manifest:
    manifest = Manifest(
        index_version=root.integer("index_version", least=1, most=MOST_VERSIONS),
        created_at=_time(root, "created_at"),
        embedding=_embedding(root.child("embedding")),
        segments=tuple(_segment(segment) for segment in root.children("segments")),
        operating_point=_operating_point(root.child("operating_point")),
        counts=_counts(root.child("counts")),
    )
    root.nothing("fields", {})
    root.nothing("tombstones", [])
    root.end()
    numbers = [segment.number for segment in manifest.segments]
    if not numbers or len(set(numbers)) != len(numbers):
        root.fail("segments", numbers, "at least one segment, each with a number of its own")
    rows = sum(segment.rows for segment in manifest.segments)
    if manifest.counts.passages != rows:
        root.fail("counts.passages", manifest.counts.passages, f"the segments' {rows} rows")
    return manifest


def _time(root: StrictObject, key: str) -> str:
    text = root.text(key)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.utcoffset() is None:
        root.fail(key, text, "a time in UTC such as 2026-01-31T12:00:00+00:00")
    return text


def _embedding(entry: StrictObject) -> EmbeddingRecord:
    record = EmbeddingRecord(
        name=entry.text("name"),
        fingerprint=entry.text("fingerprint"),
        dim=entry.integer("dim", least=1, most=MOST_DIM),
        precision=entry.text("precision"),
        template=entry.text("template"),
    )
    entry.end()
    return record


def _segment(entry: StrictObject) -> SegmentRecord:
    number = entry.integer("number", least=1, most=MOST_SEGMENTS)
    kind = _kind(entry)
    # The only names that ever become paths are ours: a manifest can't point outside its directory.
    found = entry.text("id", allowed={segment_id(number)})
    files = {name: _file(file) for name, file in entry.named_children("files").items()}
    if files.keys() != FILES[kind]:
        entry.fail("files", sorted(files), f"exactly {sorted(FILES[kind])}, the files of kind {kind}")
    rows = entry.integer("rows", least=1, most=MOST_ROWS)
    entry.end()
    return SegmentRecord(id=found, number=number, rows=rows, kind=kind, files=files)


def _file(entry: StrictObject) -> FileRecord:
    record = FileRecord(bytes=entry.integer("bytes", least=1), sha256=entry.text("sha256"))
    if not _SHA256.fullmatch(record.sha256):
        entry.fail("sha256", record.sha256, "64 hexadecimal digits")
    entry.end()
    return record


def _operating_point(entry: StrictObject) -> OperatingPoint:
    point = OperatingPoint(
        kind=_kind(entry),
        ef_search=entry.integer("ef_search", most=1_000_000),
        rescore=entry.integer("rescore", most=1_000),
        recall_at_10=entry.number_or_none("recall_at_10", least=0, most=1),
    )
    entry.end()
    return point


def _counts(entry: StrictObject) -> Counts:
    counts = Counts(
        documents=entry.integer("documents", least=1),
        passages=entry.integer("passages", least=1),
        skipped=entry.integer("skipped"),
    )
    entry.end()
    return counts


def _kind(entry: StrictObject) -> Kind:
    found = entry.text("kind", allowed=KINDS)
    return next(kind for kind in KINDS if kind == found)
