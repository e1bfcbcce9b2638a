"""A manifest to JSON and back; reading trusts no value."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final, TypeVar

from tritonrag_backends.choices import VectorType
from tritonrag_backends.index.format import (
    ADVICE,
    FORMAT_VERSION,
    KIND_CHOICES,
    KINDS,
    MANIFESTS,
    MODES,
    MOST_DIM,
    MOST_ROWS,
    MOST_SEGMENTS,
    MOST_VERSIONS,
    REDUCTIONS,
    VECTOR_TYPES,
    Counts,
    EmbeddingRecord,
    FileRecord,
    IndexOptions,
    Manifest,
    OperatingPoint,
    SegmentRecord,
    SharedFile,
    Tombstones,
    VectorRecord,
    segment_files,
    segment_id,
)
from tritonrag_backends.index.strict_json import StrictObject
from tritonrag_client.errors import InternalError

S = TypeVar("S", bound=str)
DIGEST_DIGITS: Final = 16
_MANIFEST_NAME = re.compile(r"(?P<version>[0-9]{8})-(?P<digest>[0-9a-f]{16})\.json")
_SHARED_NAME = re.compile(r"(?P<what>tombstones|projection|queries)-(?P<digest>[0-9a-f]{16})\.npy")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def encode_manifest(manifest: Manifest) -> bytes:
    """The file's bytes: the same manifest gives the same bytes."""
    body = {"format_version": FORMAT_VERSION, **asdict(manifest)}
    return json.dumps(body, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


def manifest_file_name(manifest: Manifest) -> str:
    """The name that the manifest's file bears and that CURRENT holds."""
    return manifest_name(manifest.index_version, encode_manifest(manifest))


def manifest_name(version: int, data: bytes) -> str:
    """The file name of a manifest with this version and these bytes."""
    return f"{version:08d}-{hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS]}.json"


def manifest_version(name: str) -> int | None:
    """The version in a manifest's file name; None where the name is none."""
    match = _MANIFEST_NAME.fullmatch(name)
    return int(match["version"]) if match else None


def decode_manifest(name: str, data: bytes) -> Manifest:
    """Read a manifest back. Raises InternalError that names the file, the place in it and the way out."""
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
    vectors = _vectors(root.child("vectors"))
    manifest = Manifest(
        index_version=root.integer("index_version", least=1, most=MOST_VERSIONS),
        last_segment=root.integer("last_segment", most=MOST_SEGMENTS),
        created_at=_time(root, "created_at"),
        cause=root.text("cause"),
        embedding=_embedding(root.child("embedding")),
        vectors=vectors,
        options=_options(root.child("options")),
        segments=tuple(_segment(segment, vectors.type) for segment in root.children("segments")),
        counts=_counts(root.child("counts")),
        queries=_shared(root.child_or_none("queries"), "queries"),
    )
    root.end()
    _check_sums(root, manifest)
    return manifest


def _check_sums(root: StrictObject, manifest: Manifest) -> None:
    numbers = [segment.number for segment in manifest.segments]
    if len(set(numbers)) != len(numbers):
        root.fail("segments", numbers, "segments each with a number of its own")
    if max(numbers, default=0) > manifest.last_segment:
        root.fail("last_segment", manifest.last_segment, f"at least {max(numbers)}, a segment's number")
    rows = sum(segment.live_rows for segment in manifest.segments)
    if manifest.counts.passages != rows:
        root.fail("counts.passages", manifest.counts.passages, f"the segments' {rows} rows that are not deleted")
    if manifest.vectors.dims > manifest.embedding.dim:
        root.fail("vectors.dims", manifest.vectors.dims, f"at most the {manifest.embedding.dim} of the embeddings")


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


def _vectors(entry: StrictObject) -> VectorRecord:
    record = VectorRecord(
        type=_one_of(entry, "type", VECTOR_TYPES),
        dims=entry.integer("dims", least=1, most=MOST_DIM),
        reduction=_one_of(entry, "reduction", REDUCTIONS),
        projection=_shared(entry.child_or_none("projection"), "projection"),
        recall_at_10=entry.number_or_none("recall_at_10", least=0, most=1),
    )
    if (record.reduction == "pca") != (record.projection is not None):
        entry.fail("projection", record.projection, "a file exactly with reduction pca")
    entry.end()
    return record


def _options(entry: StrictObject) -> IndexOptions:
    target = entry.number_or_none("recall_target", least=0, most=1)
    if target is None:
        entry.fail("recall_target", target, "a number from 0 to 1")
    options = IndexOptions(
        kind=_one_of(entry, "kind", KIND_CHOICES),
        recall_target=target,
        mode=_one_of(entry, "mode", MODES),
        analyzer=entry.text("analyzer"),
        fields=entry.texts_or_none("fields"),
    )
    entry.end()
    return options


def _segment(entry: StrictObject, vectors: VectorType) -> SegmentRecord:
    number = entry.integer("number", least=1, most=MOST_SEGMENTS)
    kind = _one_of(entry, "kind", KINDS)
    # The only names that ever become paths are ours: a manifest can't point outside its directory.
    found = entry.text("id", allowed={segment_id(number)})
    files = {name: _file(file) for name, file in entry.named_children("files").items()}
    expected = segment_files(kind, vectors)
    if files.keys() != expected:
        entry.fail("files", sorted(files), f"exactly {sorted(expected)}, the files of kind {kind}")
    rows = entry.integer("rows", least=1, most=MOST_ROWS)
    record = SegmentRecord(
        id=found,
        number=number,
        rows=rows,
        kind=kind,
        files=files,
        point=_point(entry.child("point")),
        fields=entry.texts_or_none("fields") or (),
        unfilterable=entry.texts_or_none("unfilterable") or (),
        tombstones=_tombstones(entry.child_or_none("tombstones"), rows),
    )
    entry.end()
    return record


def _tombstones(entry: StrictObject | None, rows: int) -> Tombstones | None:
    if entry is None:
        return None
    file = _shared(entry.child("file"), "tombstones")
    assert file is not None  # noqa: S101 - given
    record = Tombstones(file=file, rows=entry.integer("rows", least=1, most=rows))
    entry.end()
    return record


def _shared(entry: StrictObject | None, what: str) -> SharedFile | None:
    if entry is None:
        return None
    name = entry.text("name")
    file = _file(entry)
    match = _SHARED_NAME.fullmatch(name)
    if match is None or match["what"] != what or not file.sha256.startswith(match["digest"]):
        entry.fail("name", name, f"{what}-{file.sha256[:DIGEST_DIGITS]}.npy")
    return SharedFile(name=name, bytes=file.bytes, sha256=file.sha256)


def _file(entry: StrictObject) -> FileRecord:
    record = FileRecord(bytes=entry.integer("bytes"), sha256=entry.text("sha256"))
    if not _SHA256.fullmatch(record.sha256):
        entry.fail("sha256", record.sha256, "64 hexadecimal digits")
    entry.end()
    return record


def _point(entry: StrictObject) -> OperatingPoint:
    point = OperatingPoint(
        effort=entry.integer("effort", most=1_000_000_000),
        rescore=entry.integer("rescore", least=1, most=1_000_000),
        recall_at_10=entry.number_or_none("recall_at_10", least=0, most=1),
        queries=entry.integer("queries"),
    )
    entry.end()
    return point


def _counts(entry: StrictObject) -> Counts:
    counts = Counts(
        documents=entry.integer("documents"), passages=entry.integer("passages"), skipped=entry.integer("skipped")
    )
    entry.end()
    return counts


def _one_of(entry: StrictObject, key: str, allowed: Sequence[S]) -> S:
    found = entry.text(key, allowed=allowed)
    return next(value for value in allowed if value == found)
