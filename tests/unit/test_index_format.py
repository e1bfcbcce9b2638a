"""Promises of the manifest: what it says is checked before it is used."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from index_fakes import embedding_record

from tritonrag_backends.index.format import (
    Counts,
    FileRecord,
    Manifest,
    OperatingPoint,
    SegmentRecord,
    decode_manifest,
    manifest_name,
)
from tritonrag_client.errors import InternalError

FILE = FileRecord(bytes=10, sha256="0" * 64)
MANIFEST = Manifest(
    index_version=3,
    created_at="2026-01-31T12:00:00+00:00",
    embedding=embedding_record(),
    segments=(
        SegmentRecord(
            id="000007",
            number=7,
            rows=5,
            kind="flat",
            files={"vectors.npy": FILE, "passages.bin": FILE, "offsets.npy": FILE},
        ),
    ),
    operating_point=OperatingPoint(kind="flat", ef_search=0, rescore=0, recall_at_10=1.0),
    counts=Counts(documents=2, passages=5, skipped=1),
)


def decode_changed(change: Callable[[dict[str, Any]], object]) -> Manifest:
    body = json.loads(MANIFEST.encode())
    change(body)
    data = json.dumps(body).encode()
    return decode_manifest(manifest_name(3, data), data)


def test_a_manifest_comes_back_as_it_was_written() -> None:
    assert decode_manifest(MANIFEST.file_name, MANIFEST.encode()) == MANIFEST


def test_one_flipped_bit_is_known_by_the_name() -> None:
    data = bytearray(MANIFEST.encode())
    data[40] ^= 1
    with pytest.raises(InternalError, match="damaged"):
        decode_manifest(MANIFEST.file_name, bytes(data))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format_version=2), "format is 2 and this tritonrag reads 1"),
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
        (lambda m: m.update(segments=[]), "segments"),
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
        (lambda m: m["operating_point"].update(recall_at_10=2), "recall_at_10"),
        (lambda m: m["counts"].update(passages=6), "segments' 5 rows"),
        (lambda m: m.update(tombstones=[1]), "tombstones"),
        (lambda m: m.update(fields={"lang": "string"}), "fields"),
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
        decode_manifest(name, MANIFEST.encode())
