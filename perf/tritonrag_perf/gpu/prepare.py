"""What the parts share, made once: the embedder with its FP16 graph, and an index of Python's own documentation."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tritonrag.indexing import IndexJob, run_job
from tritonrag.terminal import PlainSteps
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import ENCODER_FILE, MANIFEST_FILE
from tritonrag_backends.index.change import has_versions
from tritonrag_backends.settings import EmbedderSettings, Settings
from tritonrag_client.errors import RagError
from tritonrag_export.documents.chunking import chunk
from tritonrag_export.documents.model import Document
from tritonrag_export.documents.pydoc_corpus import pydoc_documents
from tritonrag_export.documents.units import units_of
from tritonrag_export.embedder.exporter import ExportOptions, export_embedder
from tritonrag_export.indexing import build_index

# Tiny: enough passages for answers and distractors, in seconds.
_FEW_DOCUMENTS: Final = frozenset(
    {f"pydoc:{module}" for module in ("json", "csv", "pathlib", "statistics")}
    | {f"pydoc:topics/{topic}" for topic in ("assert", "with", "try")}
)


def prepare(embedder: Path, index: Path, *, tiny: bool) -> None:
    """Make each where it is not there. `tiny`: an index of a few documents. Raises RagError."""
    if not (embedder / MANIFEST_FILE).is_file() or not (embedder / ENCODER_FILE).is_file():
        export_embedder(None, embedder, options=ExportOptions(target="onnx-fp16"))
    if has_versions(index):
        return
    if tiny:
        encoder = Encoder.open(embedder)
        units = units_of(_few_documents(), lambda document: chunk(document, encoder), lambda _: None)
        build_index(units, [encoder], index)
        return
    run_job(
        IndexJob(settings=Settings(index=index, embedder=EmbedderSettings(model=embedder)), pydoc=True), PlainSteps()
    )


def _few_documents() -> Iterator[Document]:
    return (document for document in pydoc_documents(on_skip=lambda _: None) if document.uri in _FEW_DOCUMENTS)


def main(argv: Sequence[str] | None = None) -> None:
    """The command: `python -m tritonrag_perf.gpu.prepare`. Exits with the error's message where something is wrong."""
    parser = argparse.ArgumentParser(prog="tritonrag_perf.gpu.prepare", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--scale", choices=["full", "tiny"], default="full")
    options = parser.parse_args(argv)
    try:
        prepare(options.embedder, options.index, tiny=options.scale == "tiny")
    except RagError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
