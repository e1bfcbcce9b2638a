"""`tritonrag index build` and `add`: documents to an index, with a summary that names every file that was left out."""

from pathlib import Path

from tritonrag.commands.index_change import merge_all_there_is
from tritonrag.indexing import Built, IndexJob, kinds_in_words, run_job
from tritonrag.terminal import bold, open_steps, tell, write, write_json
from tritonrag_backends.index.format import Manifest

MIB = 2**20
_MOST_NAMED = 50  # skipped files that the summary names; --json has them all


def run_build(job: IndexJob, *, json: bool) -> None:
    """Build and say what came out."""
    with open_steps() as steps:
        built = run_job(job, steps)
    if json:
        write_json(_to_dict(built, job.settings.index))
        return
    summary = built.summary
    write(f"{bold(f'{summary.passages:,} passages')} from {summary.documents:,} documents are in {job.settings.index}")
    _print(built)


def run_add(job: IndexJob, *, merge: bool, json: bool) -> None:
    """Add and say what changed; then, with `merge`, merge segments where there are many. The new version is live before that."""
    with open_steps() as steps:
        built = run_job(job, steps)
        merged = merge_all_there_is(job.settings.index, steps, wait_s=job.wait_s) if merge else None
    summary = built.summary
    if json:
        write_json({**_to_dict(built, job.settings.index), "index_version": (merged or summary.manifest).index_version})
        return
    if not summary.segments:
        write(f"nothing to add: {summary.unchanged:,} documents are in {job.settings.index} as they are")
    else:
        new = summary.documents - summary.unchanged - summary.replaced
        write(
            f"{bold(f'{summary.passages:,} passages')} added to {job.settings.index}: {new:,} documents are new,"
            f" {summary.replaced:,} have changed, {summary.unchanged:,} have not"
        )
    _print(built, merged)


def _print(built: Built, merged: Manifest | None = None) -> None:
    summary = built.summary
    kinds = ", ".join(dict.fromkeys(segment.kind for segment in summary.segments))
    if summary.segments:
        write(
            f"  version {summary.index_version}, {kinds}, {summary.index_bytes / MIB:,.1f} MiB,"
            f" {summary.elapsed_s:.1f} s, {summary.passages_per_s:,.0f} passages/s"
        )
        _print_recall(summary.manifest)
    if merged is not None:
        write(f"  version {merged.index_version}: segments merged, {len(merged.segments)} now")
    if summary.reused:
        write(f"  {summary.reused:,} passages had been embedded by a run that was broken off")
    if summary.truncated:
        write(
            f"  {summary.truncated:,} passages were longer than the embedding model reads; their ends are not searched"
        )
    if built.unsupported:
        write(f"  not read, being of no supported kind: {kinds_in_words(built.unsupported)}")
    if summary.skipped:
        write(f"  {len(summary.skipped):,} skipped:")
    for skipped in summary.skipped[:_MOST_NAMED]:
        write(f"    {skipped.path} {skipped.reason}")
    if len(summary.skipped) > _MOST_NAMED:
        tell(f"    and {len(summary.skipped) - _MOST_NAMED:,} more; --json names them all")
    if summary.recall_missed is not None:
        tell(
            f"warning: recall@10 is {summary.recall_missed:.4f}, under the wanted {summary.manifest.options.recall_target:g};"
            " try another --kind, fuller vectors (--vectors, --dims), or a lower --recall"
        )


def _print_recall(manifest: Manifest) -> None:
    """What was measured when the index was built."""
    if manifest.vectors.recall_at_10 is not None:
        stored = f"{manifest.vectors.type}, {manifest.vectors.dims} of {manifest.embedding.dim} dimensions"
        write(f"  vectors: {stored}; they keep {manifest.vectors.recall_at_10:.3f} of recall@10")
    measured = [one for one in manifest.segments if one.kind != "flat" and one.point.recall_at_10 is not None]
    for one in measured:
        effort = "efSearch" if one.kind == "hnsw" else "nprobe"
        write(
            f"  {one.kind}: recall@10 {one.point.recall_at_10:.4f} on held-out queries at {effort} {one.point.effort},"
            f" {one.point.rescore} candidates re-scored a passage"
        )


def _to_dict(built: Built, output: Path) -> dict[str, object]:
    summary = built.summary
    return {
        "output": str(output),
        "index_version": summary.index_version,
        "kinds": [segment.kind for segment in summary.segments],
        "recall_at_10": summary.manifest.recall_at_10,
        "vectors_recall_at_10": summary.manifest.vectors.recall_at_10,
        "documents": summary.documents,
        "passages": summary.passages,
        "replaced": summary.replaced,
        "unchanged": summary.unchanged,
        "reused": summary.reused,
        "truncated": summary.truncated,
        "skipped": [{"path": skipped.path, "reason": skipped.reason} for skipped in summary.skipped],
        "unsupported": built.unsupported,
        "index_bytes": summary.index_bytes,
        "seconds": round(summary.elapsed_s, 3),
        "passages_per_s": round(summary.passages_per_s, 1),
    }
