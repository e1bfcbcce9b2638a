"""`tritonrag index status` and `verify`: what there is, and whether it is whole."""

from dataclasses import asdict
from pathlib import Path

import typer

from tritonrag.terminal import bold, dim, tell, write, write_json
from tritonrag_backends.index.format import Manifest, SegmentRecord
from tritonrag_backends.index.operations import Status, VersionStatus, status, verify

MIB = 2**20


def run_status(index: Path, *, json: bool) -> None:
    """Print the live version, its segments, all versions, and the bytes."""
    found = status(index)
    if json:
        write_json(_to_dict(found))
        return
    manifest = found.manifest
    counts = manifest.counts
    write(
        f"{bold(f'version {manifest.index_version}')} of {index}: {counts.passages:,} passages of {counts.documents:,} documents"
    )
    write(f"  embedded by {manifest.embedding.name} ({manifest.embedding.precision}), {_vectors(manifest)}")
    write(f"  searched {manifest.options.mode}; words: {manifest.options.language}; filters: {_fields(manifest)}")
    write(f"  recall@10 {_recall(manifest.recall_at_10)} of {manifest.options.recall_target:g} wanted")
    for segment in manifest.segments:
        write(f"  segment {segment.number}: {_segment(segment)}")
    write(f"  {found.index_bytes / MIB:,.1f} MiB; other versions {found.other_bytes / MIB:,.1f} MiB")
    if found.unfinished_bytes:
        write(f"  {found.unfinished_bytes / MIB:,.1f} MiB of a build that is not finished" + _merging(found))
    for version in found.versions:
        write(f"  {_version(version)}")


def run_verify(index: Path, *, every_version: bool, json: bool) -> None:
    """Print what is wrong; ends the command with status 1 where something is."""
    problems = verify(index, every_version=every_version)
    if json:
        write_json({"problems": problems})
    elif not problems:
        write("every file is as its manifest says")
    for problem in problems if not json else ():
        tell(problem)
    if problems:
        raise typer.Exit(1)


def _vectors(manifest: Manifest) -> str:
    vectors = manifest.vectors
    shortened = f", {vectors.dims} of {manifest.embedding.dim} dimensions ({vectors.reduction})"
    kept = "" if vectors.recall_at_10 is None else f", keeping {vectors.recall_at_10:.3f} of recall@10"
    return f"stored as {vectors.type}{shortened if vectors.reduction != 'none' else ''}{kept}"


def _fields(manifest: Manifest) -> str:
    fields = sorted({field for segment in manifest.segments for field in segment.fields})
    return ", ".join(fields) or "none"


def _recall(recall: float | None) -> str:
    return "not measured" if recall is None else f"{recall:.3f}"


def _segment(segment: SegmentRecord) -> str:
    deleted = f", {segment.rows - segment.live_rows:,} deleted" if segment.tombstones else ""
    point = segment.point
    effort = "" if segment.kind == "flat" else f", effort {point.effort}, recall@10 {_recall(point.recall_at_10)}"
    return f"{segment.rows:,} passages{deleted}, {segment.kind}{effort}"


def _version(version: VersionStatus) -> str:
    line = f"version {version.version}: {version.passages:,} passages, {version.cause}, {version.created_at}"
    return bold(f"{line}, live") if version.live else dim(line)


def _merging(found: Status) -> str:
    return " (a merge is running)" if found.merging else ""


def _to_dict(found: Status) -> dict[str, object]:
    manifest = asdict(found.manifest)
    for segment in manifest["segments"]:
        del segment["files"]
    return {
        **manifest,
        "recall_at_10": found.manifest.recall_at_10,
        "versions": [asdict(version) for version in found.versions],
        "index_bytes": found.index_bytes,
        "other_bytes": found.other_bytes,
        "unfinished_bytes": found.unfinished_bytes,
        "merging": found.merging,
    }
