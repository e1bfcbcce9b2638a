"""`tritonrag index ...`: options in. What the commands do stands in `tritonrag.commands`."""

from typing import Annotated

import typer

from tritonrag.index_options import (
    ALL_CORES,
    Corpus,
    Dims,
    Fields,
    IndexKind,
    IndexMode,
    Language,
    Merge,
    OwnTenant,
    Paths,
    Recall,
    ReduceBy,
    SegmentPassages,
    Vectors,
    VectorsFrom,
    WaitS,
    Workers,
)
from tritonrag.options import EmbedderDir, IndexDir, Json

index_app = typer.Typer(help="Build and look after the index.", no_args_is_help=True)


@index_app.command("build")
def index_build(
    paths: Paths = None,
    *,
    output: IndexDir = None,
    corpus: Corpus = None,
    kind: IndexKind = "auto",
    recall: Recall = 0.95,
    mode: IndexMode = "hybrid",
    language: Language = "english",
    fields: Fields = None,
    vectors: Vectors = "fp32",
    dims: Dims = None,
    reduce_by: ReduceBy = "pca",
    vectors_from: VectorsFrom = None,
    tenant: OwnTenant = None,
    workers: Workers = ALL_CORES,
    segment_passages: SegmentPassages = 2_000_000,
    wait_s: WaitS = 0.0,
    embedder: EmbedderDir = None,
    json: Json = False,
) -> None:
    """Turn documents (md, txt, rst, html, pdf, docx, jsonl) into an index; run again after a kill, it goes on."""
    from tritonrag.commands.index_build import run_build  # noqa: PLC0415 - heavy
    from tritonrag.indexing import IndexJob  # noqa: PLC0415
    from tritonrag.settings import settings_from  # noqa: PLC0415
    from tritonrag_export.indexing import BuildOptions  # noqa: PLC0415

    job = IndexJob(
        settings=settings_from(index=output, embedder=embedder),
        paths=tuple(paths or ()),
        pydoc=corpus == "pydoc",
        vectors_from=vectors_from,
        tenant=tenant,
        workers=workers,
        wait_s=wait_s,
        options=BuildOptions(
            kind=kind,
            recall_target=recall,
            mode=mode,
            language=language,
            fields=tuple(fields) if fields else None,
            vectors=vectors,
            dims=dims,
            reduction=reduce_by,
            segment_passages=segment_passages,
        ),
    )
    run_build(job, json=json)


@index_app.command("add")
def index_add(
    paths: Paths = None,
    *,
    index: IndexDir = None,
    corpus: Corpus = None,
    vectors_from: VectorsFrom = None,
    tenant: OwnTenant = None,
    workers: Workers = ALL_CORES,
    merge: Merge = True,
    wait_s: WaitS = 0.0,
    embedder: EmbedderDir = None,
    json: Json = False,
) -> None:
    """Add documents; one that is there already is replaced if it has changed. A running server takes the new version up."""
    from tritonrag.commands.index_build import run_add  # noqa: PLC0415 - heavy
    from tritonrag.indexing import IndexJob  # noqa: PLC0415
    from tritonrag.settings import settings_from  # noqa: PLC0415

    job = IndexJob(
        settings=settings_from(index=index, embedder=embedder),
        paths=tuple(paths or ()),
        pydoc=corpus == "pydoc",
        vectors_from=vectors_from,
        tenant=tenant,
        workers=workers,
        wait_s=wait_s,
        adding=True,
    )
    run_add(job, merge=merge, json=json)


@index_app.command("delete")
def index_delete(
    documents: Annotated[
        list[str], typer.Argument(metavar="DOCUMENT...", help="Ids: a file's path as it was given, a JSONL line's id.")
    ],
    *,
    index: IndexDir = None,
    tenant: Annotated[
        str | None,
        typer.Option(envvar="TRITONRAG_TENANT", help="Whose documents. (default: everybody's)", show_default=False),
    ] = None,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", envvar="TRITONRAG_MISSING_OK", help="Pass over those that are not there.")
    ] = False,
    merge: Merge = True,
    wait_s: WaitS = 0.0,
    json: Json = False,
) -> None:
    """Delete documents; all of them, or where one is not there, none."""
    from tritonrag.commands.index_change import run_delete  # noqa: PLC0415 - heavy
    from tritonrag.settings import settings_from  # noqa: PLC0415

    run_delete(
        settings_from(index=index).index,
        documents,
        tenant=tenant,
        missing_ok=missing_ok,
        merge_after=merge,
        wait_s=wait_s,
        json=json,
    )


@index_app.command("merge")
def index_merge(
    *,
    index: IndexDir = None,
    everything: Annotated[
        bool,
        typer.Option("--all", envvar="TRITONRAG_MERGE_ALL", help="All segments to one, deleted passages left out."),
    ] = False,
    wait_s: WaitS = 0.0,
    json: Json = False,
) -> None:
    """Merge segments by policy; others can search and add meanwhile."""
    from tritonrag.commands.index_change import run_merge  # noqa: PLC0415 - heavy
    from tritonrag.settings import settings_from  # noqa: PLC0415

    run_merge(settings_from(index=index).index, everything=everything, wait_s=wait_s, json=json)


@index_app.command("rollback")
def index_rollback(
    version: Annotated[
        int | None,
        typer.Argument(help="Version to go back (or forth) to. (default: the one before)", show_default=False),
    ] = None,
    *,
    index: IndexDir = None,
    wait_s: WaitS = 0.0,
    json: Json = False,
) -> None:
    """Make another version live, once all its files are checked."""
    from tritonrag.commands.index_change import run_rollback  # noqa: PLC0415 - heavy
    from tritonrag.settings import settings_from  # noqa: PLC0415

    run_rollback(settings_from(index=index).index, version, wait_s=wait_s, json=json)


@index_app.command("status")
def index_status(*, index: IndexDir = None, json: Json = False) -> None:
    """Tell what the index holds, how it is searched, which versions there are and where the bytes are."""
    from tritonrag.commands.index_status import run_status  # noqa: PLC0415 - heavy
    from tritonrag.settings import settings_from  # noqa: PLC0415

    run_status(settings_from(index=index).index, json=json)


@index_app.command("verify")
def index_verify(
    *,
    index: IndexDir = None,
    every_version: Annotated[
        bool, typer.Option("--all", envvar="TRITONRAG_VERIFY_ALL", help="Every version, not the live one alone.")
    ] = False,
    json: Json = False,
) -> None:
    """Hold every file to its digest; exit status 1 where something is wrong."""
    from tritonrag.commands.index_status import run_verify  # noqa: PLC0415 - heavy
    from tritonrag.settings import settings_from  # noqa: PLC0415

    run_verify(settings_from(index=index).index, every_version=every_version, json=json)


@index_app.command("gc")
def index_gc(
    *,
    index: IndexDir = None,
    keep: Annotated[
        int, typer.Option(envvar="TRITONRAG_INDEX_KEEP", min=1, help="Newest versions to keep, besides the live one.")
    ] = 3,
    wait_s: WaitS = 0.0,
    json: Json = False,
) -> None:
    """Remove old versions, and what builds that were broken off left behind."""
    from tritonrag.commands.index_change import run_gc  # noqa: PLC0415 - heavy
    from tritonrag.settings import settings_from  # noqa: PLC0415

    run_gc(settings_from(index=index).index, keep=keep, wait_s=wait_s, json=json)
