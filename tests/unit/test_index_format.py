"""Promises of the manifest: what it says is checked before it is used."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from index_fakes import OPTIONS

from tritonrag_backends.index.format import (
    EXACT,
    Counts,
    EmbeddingRecord,
    FileRecord,
    Manifest,
    SegmentRecord,
    SharedFile,
    Tombstones,
    VectorRecord,
    segment_files,
)
from tritonrag_backends.index.manifest_json import (
    decode_manifest,
    encode_manifest,
    manifest_file_name,
    manifest_name,
)
from tritonrag_client.errors import InternalError

FILE = FileRecord(bytes=10, sha256="0" * 64)
DEAD = SharedFile(name=f"tombstones-{'0' * 16}.npy", bytes=10, sha256="0" * 64)
MANIFEST = Manifest(
    index_version=3,
    last_segment=7,
    created_at="2026-01-31T12:00:00+00:00",
    cause="index add",
    embedding=EmbeddingRecord(name="fake", fingerprint="f1", dim=16, precision="fp32", template="{title}\n{text}"),
    vectors=VectorRecord(type="fp32", dims=16, reduction="none"),
    options=OPTIONS,
    segments=(
        SegmentRecord(
            id="000007",
            number=7,
            rows=5,
            kind="flat",
            files=dict.fromkeys(sorted(segment_files("flat", "fp32")), FILE),
            point=EXACT,
            fields=("lang",),
            unfilterable=(),
            tombstones=Tombstones(file=DEAD, rows=1),
        ),
    ),
    counts=Counts(documents=2, passages=4, skipped=1),
    queries=SharedFile(name=f"queries-{'0' * 16}.npy", bytes=10, sha256="0" * 64),
)


def decode_changed(change: Callable[[dict[str, Any]], object]) -> Manifest:
    body = json.loads(encode_manifest(MANIFEST))
    change(body)
    data = json.dumps(body).encode()
    return decode_manifest(manifest_name(3, data), data)


def test_a_manifest_comes_back_as_it_was_written() -> None:
    assert decode_manifest(manifest_file_name(MANIFEST), encode_manifest(MANIFEST)) == MANIFEST


def test_one_flipped_bit_is_known_by_the_name() -> None:
    data = bytearray(encode_manifest(MANIFEST))
    data[40] ^= 1
    with pytest.raises(InternalError, match="damaged"):
        decode_manifest(manifest_file_name(MANIFEST), bytes(data))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format_version=1), "format is 1 and this tritonrag reads 2"),
        (lambda m: m.update(format_version="1"), "format_version"),
        (lambda m: m.pop("format_version"), "format_version is missing"),
        (lambda m: m.update(index_version=4), "index_version is 4, expected 3"),
        (lambda m: m.update(index_version=True), "index_version is true"),
        (lambda m: m.update(created_at="yesterday"), "created_at"),
        (lambda m: m.update(created_at="2026-01-31T12:00:00"), "created_at"),
        (lambda m: m.pop("embedding"), "embedding is missing"),
        (lambda m: m["embedding"].update(dim=0), r"embedding\.dim is 0"),
        (lambda m: m["embedding"].update(dim=10**9), r"embedding\.dim"),
        (lambda m: m["embedding"].update(name=None), r"embedding\.name is null"),
        (lambda m: m["embedding"].update(extra=1), "unknown keys"),
        (lambda m: m.update(extra=1), "unknown keys"),
        (lambda m: m.update(segments=[]), "segments' 0 rows"),
        (lambda m: m.update(segments={}), "segments is {}, expected a list"),
        (lambda m: m.update(segments=m["segments"] * 2), "number of its own"),
        (lambda m: m["segments"][0].update(id="../../etc"), r"segments\[0\]\.id"),
        (lambda m: m["segments"][0].update(id="/000007"), r"segments\[0\]\.id"),
        (lambda m: m["segments"][0].update(id="000008"), r"segments\[0\]\.id"),
        (lambda m: m["segments"][0].update(number=-1), r"segments\[0\]\.number"),
        (lambda m: m["segments"][0].update(number=2**31), r"segments\[0\]\.number"),
        (lambda m: m["segments"][0].update(rows=0), r"segments\[0\]\.rows"),
        (lambda m: m["segments"][0].update(kind="ivf"), r"segments\[0\]\.kind"),
        (lambda m: m["segments"][0].update(kind="hnsw"), "files of kind hnsw"),
        (lambda m: m["segments"][0]["files"].update({"../x": {"bytes": 1, "sha256": "0" * 64}}), r"segments\[0\]\.files"),
        (lambda m: m["segments"][0]["files"]["offsets.npy"].update(sha256="0" * 63 + "G"), "sha256"),
        (lambda m: m["segments"][0]["files"]["offsets.npy"].update(bytes=1.5), "bytes is 1.5"),
        (lambda m: m["segments"][0]["files"].pop("lengths.npy"), "files of kind flat"),
        (lambda m: m["segments"][0]["point"].update(recall_at_10=2), "recall_at_10"),
        (lambda m: m["segments"][0]["point"].update(rescore=0), "rescore is 0"),
        (lambda m: m["segments"][0].update(fields=[1]), r"fields is \[1\]"),
        (lambda m: m["segments"][0]["tombstones"].update(rows=6), "rows is 6"),
        (lambda m: m["segments"][0]["tombstones"]["file"].update(name="../x.npy"), "name"),
        (lambda m: m["segments"][0]["tombstones"]["file"].update(name=f"queries-{'0' * 16}.npy"), "name"),
        (lambda m: m["segments"][0]["tombstones"]["file"].update(name=f"tombstones-{'1' * 16}.npy"), "name"),
        (lambda m: m.update(last_segment=6), "last_segment is 6"),
        (lambda m: m["counts"].update(passages=6), "segments' 4 rows"),
        (lambda m: m["vectors"].update(dims=17), r"vectors\.dims is 17"),
        (lambda m: m["vectors"].update(type="fp64"), r"vectors\.type"),
        (lambda m: m["vectors"].update(reduction="pca"), "projection is null"),
        (lambda m: m["options"].update(mode="sparse"), r"options\.mode"),
        (lambda m: m["options"].update(recall_target=None), "recall_target is null"),
        (lambda m: m["options"].update(fields="lang"), r"options\.fields"),
    ],
)  # fmt: skip
def test_a_manifest_that_says_something_impossible_is_refused_by_name_and_place(
    change: Callable[[dict[str, Any]], object], said: str
) -> None:
    with pytest.raises(InternalError, match=said) as raised:
        decode_changed(change)
    assert "manifests/00000003-" in raised.value.message


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InternalError, match="manifests/00000003-"):
        decode_manifest(manifest_name(3, data), data)


@pytest.mark.parametrize(
    "name", ["../00000003-0000000000000000.json", "00000003.json", "", "00000003-0000000000000000.json\n"]
)
def test_a_name_that_is_no_manifests_is_refused(name: str) -> None:
    with pytest.raises(InternalError):
        decode_manifest(name, encode_manifest(MANIFEST))
