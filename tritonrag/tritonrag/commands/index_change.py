"""`tritonrag index delete`, `merge`, `rollback` and `gc`: changes that need no embedding model."""

from collections.abc import Sequence
from pathlib import Path

from tritonrag.terminal import Steps, bold, open_steps, write, write_json
from tritonrag_backends.index.format import Manifest
from tritonrag_backends.index.merging import merge
from tritonrag_backends.index.operations import collect_garbage, delete_documents, rollback
from tritonrag_backends.index.store import read_current

MIB = 2**20


def run_delete(
    index: Path,
    documents: Sequence[str],
    *,
    tenant: str | None,
    missing_ok: bool,
    merge_after: bool,
    wait_s: float,
    json: bool,
) -> None:
    """Delete and say what; the version without them is live before segments are merged."""
    deleted = delete_documents(index, documents, tenant=tenant, missing_ok=missing_ok, wait_s=wait_s)
    merged = None
    if merge_after:
        with open_steps() as steps:
            merged = merge_all_there_is(index, steps, wait_s=wait_s)
    version = (merged or deleted.manifest).index_version
    if json:
        write_json(
            {
                "index_version": version,
                "documents": deleted.documents,
                "passages": deleted.passages,
                "missing": deleted.missing,
            }
        )
        return
    write(
        f"{bold(f'{deleted.documents:,} documents')} ({deleted.passages:,} passages) deleted; version {version} is live"
    )
    if deleted.missing:
        write(f"  {len(deleted.missing):,} were not there")


def run_merge(index: Path, *, everything: bool, wait_s: float, json: bool) -> None:
    """Merge until the policy is content, or everything to one, and say what came of it."""
    before = read_current(index)
    with open_steps() as steps:
        if everything:
            merged = merge(index, everything=True, wait_s=wait_s, step=_Shown(steps))
        else:
            merged = merge_all_there_is(index, steps, wait_s=wait_s)
    if json:
        write_json(
            {
                "index_version": (merged or before).index_version,
                "segments_before": len(before.segments),
                "segments": len((merged or before).segments),
            }
        )
    elif merged is None:
        write(f"nothing to merge: {len(before.segments)} segments")
    else:
        write(f"{len(before.segments)} segments are {len(merged.segments)} now; version {merged.index_version} is live")


def merge_all_there_is(index: Path, steps: Steps, *, wait_s: float) -> Manifest | None:
    """Merge as long as the policy finds something; the last version that came of it, None where there was nothing."""
    last, shown = None, _Shown(steps)
    while (merged := merge(index, wait_s=wait_s, step=shown)) is not None:
        last = merged
    return last


def run_rollback(index: Path, version: int | None, *, wait_s: float, json: bool) -> None:
    """Go to another version and say which."""
    before, after = rollback(index, version, wait_s=wait_s)
    if json:
        write_json({"from_version": before, "index_version": after})
        return
    write(f"version {bold(str(after))} is live, where {before} was; a running server takes it up within a second")


def run_gc(index: Path, *, keep: int, wait_s: float, json: bool) -> None:
    """Remove old versions and say what that freed."""
    collected = collect_garbage(index, keep=keep, wait_s=wait_s)
    if json:
        write_json({"kept": collected.kept, "removed": collected.removed, "freed_bytes": collected.freed_bytes})
        return
    write(
        f"{len(collected.removed):,} versions removed, {collected.freed_bytes / MIB:,.1f} MiB freed; kept: "
        + ", ".join(map(str, collected.kept))
    )


class _Shown:
    """Steps of merges: a new one is begun only where something new is done."""

    def __init__(self, steps: Steps) -> None:
        self._steps, self._what = steps, ""

    def __call__(self, what: str, rows: int) -> None:
        if what != self._what:
            self._what = what
            self._steps.step(f"merging: {what}")
        self._steps.update(rows)
