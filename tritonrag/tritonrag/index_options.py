"""The options of `tritonrag index`, each with its environment variable."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from tritonrag_backends.choices import KindChoice, VectorType
from tritonrag_client.contract import Mode

Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[PATH]...", help="Files and folders; .jsonl: passages that are cut already."),
]
Corpus = Annotated[
    Literal["pydoc"] | None,
    typer.Option(
        envvar="TRITONRAG_CORPUS", help="A corpus that is at hand: pydoc is the running Python's documentation."
    ),
]
IndexKind = Annotated[KindChoice, typer.Option("--kind", envvar="TRITONRAG_INDEX_KIND", help="auto goes by size.")]
Recall = Annotated[
    float, typer.Option("--recall", envvar="TRITONRAG_INDEX_RECALL", help="Recall@10 to tune the search effort to.")
]
IndexMode = Annotated[
    Mode, typer.Option("--mode", envvar="TRITONRAG_INDEX_MODE", help="How to search where a request does not say.")
]
Language = Annotated[
    str,
    typer.Option(
        envvar="TRITONRAG_INDEX_LANGUAGE", help="Language of the words (a Snowball stemmer), or none for no stemming."
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        envvar="TRITONRAG_INDEX_FIELDS",
        help="Metadata key to filter by; repeat for several. (default: every key that can be)",
        show_default=False,
    ),
]
Vectors = Annotated[
    VectorType, typer.Option("--vectors", envvar="TRITONRAG_INDEX_VECTORS", help="How vectors are stored.")
]
Dims = Annotated[
    int | None,
    typer.Option(
        "--dims", envvar="TRITONRAG_INDEX_DIMS", min=1, help="Shorten vectors to so many values.", show_default=False
    ),
]
ReduceBy = Annotated[
    Literal["pca", "truncate"],
    typer.Option(
        "--reduce-by", envvar="TRITONRAG_INDEX_REDUCE_BY", help="How --dims shortens; truncate suits Matryoshka models."
    ),
]
VectorsFrom = Annotated[
    Path | None,
    typer.Option(
        "--vectors-from",
        envvar="TRITONRAG_VECTORS_FROM",
        metavar="FILE.npy",
        help="A vector for each passage of the input, made by the same embedding model.",
        show_default=False,
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", envvar="TRITONRAG_WORKERS", min=1, help="Embedders at work at the same time.")
]
SegmentPassages = Annotated[
    int,
    typer.Option(
        "--segment-passages",
        envvar="TRITONRAG_SEGMENT_PASSAGES",
        min=1,
        help="Most passages in a segment: bounds the memory that building takes.",
    ),
]
OwnTenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        envvar="TRITONRAG_TENANT",
        help="Whose documents they are that name no tenant themselves. (default: everybody's)",
        show_default=False,
    ),
]
WaitS = Annotated[
    float,
    typer.Option(
        "--wait-s", envvar="TRITONRAG_WAIT_S", min=0, help="Seconds to wait while another process is writing."
    ),
]
Merge = Annotated[
    bool,
    typer.Option(
        "--merge/--no-merge", envvar="TRITONRAG_MERGE", help="Merge segments afterwards, where there are many."
    ),
]

ALL_CORES = len(os.sched_getaffinity(0))
