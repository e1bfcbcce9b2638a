"""`tritonrag export embedder`: a model folder in, an embedder folder out, checked before anything is written."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tritonrag_backends.embedding.format import (
    MANIFEST_FILE,
    MODEL_FILES,
    TOKENIZER_FILE,
    EmbedderManifest,
    Parity,
)
from tritonrag_backends.embedding.tokens import TextTokenizer
from tritonrag_backends.model_folder import record_file
from tritonrag_client.errors import BadRequestError
from tritonrag_export.embedder.bert import build_bert
from tritonrag_export.embedder.parity import PARITY_TEXTS, Graphs, check_parity
from tritonrag_export.embedder.quantise import quantise
from tritonrag_export.embedder.smoothing import CALIBRATION_TEXTS, measure_factors
from tritonrag_export.embedder.source import DEFAULT_NAME, SourceModel, find_default_source, read_source
from tritonrag_export.publishing import publish

Report = Callable[[str, float], None]


def export_embedder(source: Path | None, output: Path, report: Report | None = None) -> EmbedderManifest:
    """Export the model in `source` (None: the installed all-MiniLM-L6-v2) into the folder `output`.

    An embedder that lies there is replaced; a folder with anything else in it is refused. `report` is told each step's
    name and the fraction done, 0 to 1. Raises NotFoundError and BadRequestError (source, output), InternalError (parity).
    """
    report = report or _silent
    _check_output(output)
    report("reading the model", 0.0)
    model = read_source(source or find_default_source(), name=source.resolve().name if source else DEFAULT_NAME)
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        manifest = _write(model, folder, report)
        publish(folder, output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report("done", 1.0)
    return manifest


def _silent(_step: str, _fraction: float) -> None:
    pass


def _check_output(output: Path) -> None:
    if not output.exists():
        return
    if not output.is_dir() or (any(output.iterdir()) and not (output / MANIFEST_FILE).is_file()):
        raise BadRequestError(f"{output} exists and is not an embedder folder; name a new or an empty folder")


def _write(model: SourceModel, folder: Path, report: Report) -> EmbedderManifest:
    (folder / TOKENIZER_FILE).write_bytes(model.tokenizer)
    tokenizer = TextTokenizer(folder / TOKENIZER_FILE, max_tokens=model.max_tokens)
    graphs = _build(model, tokenizer, report)
    report("checking against the reference", 0.5)
    parity = check_parity(model, graphs, tokenizer.tokenize(PARITY_TEXTS).ids)
    report("writing", 0.9)
    (folder / MODEL_FILES["fp32"]).write_bytes(graphs.portable)
    (folder / MODEL_FILES["int8"]).write_bytes(graphs.int8)
    manifest = _describe(model, folder, parity)
    manifest.save(folder)
    return manifest


def _build(model: SourceModel, tokenizer: TextTokenizer, report: Report) -> Graphs:
    report("building the graphs", 0.1)
    portable = build_bert(model, dialect="portable")
    plain = build_bert(model, dialect="cpu")
    report("quantising to int8", 0.3)
    factors = measure_factors(plain, tokenizer.tokenize(CALIBRATION_TEXTS).ids)
    cpu = build_bert(model, dialect="cpu", factors=factors)
    int8 = quantise(cpu)
    return Graphs(portable=portable.SerializeToString(), cpu=cpu.SerializeToString(), int8=int8.SerializeToString())


def _describe(model: SourceModel, folder: Path, parity: Parity) -> EmbedderManifest:
    names: Mapping[str, Path] = {path.name: path for path in sorted(folder.iterdir())}
    return EmbedderManifest(
        name=model.name,
        architecture=model.config.architecture,
        dim=model.config.hidden_size,
        max_tokens=model.max_tokens,
        pooling=model.pooling,
        fingerprint=model.fingerprint,
        files={name: record_file(path) for name, path in names.items()},
        parity=parity,
    )
