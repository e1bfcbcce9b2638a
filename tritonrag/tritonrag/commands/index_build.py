"""`tritonrag index build`: documents to an index, with a summary that names every file that was left out."""

from pathlib import Path

from tritonrag.indexing import Built, IndexJob, build, kinds_in_words
from tritonrag.settings import settings_from
from tritonrag.terminal import bold, open_steps, tell, write, write_json
from tritonrag_backends.index.kinds import KindChoice
from tritonrag_client.errors import BadRequestError

MIB = 2**20
_MOST_NAMED = 50  # skipped files that the summary names; --json has them all


def run(
    *,
    paths: tuple[Path, ...],
    output: Path | None,
    corpus: str | None,
    kind: KindChoice,
    embedder: Path | None,
    json: bool,
) -> None:
    """Build and say what came out; `output` None is where `serve` looks for it."""
    if not paths and corpus is None:
        raise BadRequestError("there is nothing to index; name files or folders, or give --corpus pydoc")
    settings = settings_from(index=output, embedder=embedder)
    with open_steps() as steps:
        built = build(IndexJob(settings=settings, paths=paths, pydoc=corpus == "pydoc", kind=kind), steps)
    if json:
        write_json(_to_dict(built, settings.index))
        return
    _print(built, settings.index)


def _print(built: Built, output: Path) -> None:
    summary = built.summary
    write(f"{bold(f'{summary.passages:,} passages')} from {summary.documents:,} documents are in {output}")
    write(
        f"  version {summary.index_version}, {summary.kind}, {summary.index_bytes / MIB:,.1f} MiB,"
        f" {summary.elapsed_s:.1f} s, {summary.passages_per_s:,.0f} passages/s"
    )
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


def _to_dict(built: Built, output: Path) -> dict[str, object]:
    summary = built.summary
    return {
        "output": str(output),
        "index_version": summary.index_version,
        "kind": summary.kind,
        "documents": summary.documents,
        "passages": summary.passages,
        "truncated": summary.truncated,
        "skipped": [{"path": skipped.path, "reason": skipped.reason} for skipped in summary.skipped],
        "unsupported": built.unsupported,
        "index_bytes": summary.index_bytes,
        "seconds": round(summary.elapsed_s, 3),
        "passages_per_s": round(summary.passages_per_s, 1),
    }
