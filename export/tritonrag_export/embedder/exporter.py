"""`tritonrag export embedder`: a model folder in, an embedder folder out, checked before anything is written."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tritonrag_backends.embedding.buckets import Buckets
from tritonrag_backends.embedding.format import (
    ENCODER_FILE,
    MANIFEST_FILE,
    MODEL_FILES,
    PLAN_FILE,
    TOKENIZER_FILE,
    EmbedderManifest,
    Parity,
    PlanRecord,
)
from tritonrag_backends.embedding.tokens import TextTokenizer
from tritonrag_backends.model_folder import record_file
from tritonrag_backends.settings import EncoderSettings
from tritonrag_client.contract import MAX_BATCH
from tritonrag_client.errors import BadRequestError
from tritonrag_export.embedder.bert import build_bert
from tritonrag_export.embedder.padded import build_padded
from tritonrag_export.embedder.parity import PARITY_TEXTS, Graphs, check_parity
from tritonrag_export.embedder.quantise import quantise
from tritonrag_export.embedder.smoothing import CALIBRATION_TEXTS, calibrate
from tritonrag_export.embedder.source import (
    DEFAULT_NAME,
    SourceModel,
    SourceOptions,
    find_default_source,
    read_source,
)
from tritonrag_export.embedder.tensorrt_builder import PlanBuilder, PlanOrder
from tritonrag_export.publishing import publish

Report = Callable[[str, float], None]
Target = Literal["onnx", "onnx-fp16", "tensorrt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """`target`: the graphs for CPUs; those and the FP16 graph for GPUs; those and a TensorRT engine for this machine's GPU.

    Without `int8` a CPU has the fp32 graph alone: for a model that does not bear int8.
    `buckets` are the engine's length buckets in tokens, as the setting `encoder.buckets` writes them.
    """

    target: Target = "onnx"
    int8: bool = True
    source: SourceOptions = field(default_factory=SourceOptions)
    buckets: str = EncoderSettings().buckets


def export_embedder(
    source: Path | None, output: Path, report: Report | None = None, *, options: ExportOptions | None = None
) -> EmbedderManifest:
    """Export the model in `source` (None: the installed all-MiniLM-L6-v2) into the folder `output`.

    An embedder that lies there is replaced; a folder with anything else in it is refused. `report` is told each step's
    name and the fraction done, 0 to 1. Raises NotFoundError and BadRequestError (source, output, no TensorRT), InternalError
    (parity, TensorRT).
    """
    report, options = report or _silent, options or ExportOptions()
    _check_output(output)
    report("reading the model", 0.0)
    name = source.resolve().name if source else DEFAULT_NAME
    model = read_source(source or find_default_source(), name=name, options=options.source)
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        export = _Export(model, folder, report, options)
        manifest = export.write(timing_cache=output.with_name(f"{output.name}.timing"))
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


class _Export:
    """One export into a folder that nobody sees yet. Where the engine that is wanted can't be built, making this raises it."""

    def __init__(self, model: SourceModel, folder: Path, report: Report, options: ExportOptions) -> None:
        self._model, self._folder, self._report = model, folder, report
        self._is_for_gpus, self._has_int8 = options.target != "onnx", options.int8
        self._buckets = Buckets.parse(options.buckets, max_tokens=model.max_tokens)
        self._builder = PlanBuilder.find() if options.target == "tensorrt" else None

    def write(self, *, timing_cache: Path) -> EmbedderManifest:
        (self._folder / TOKENIZER_FILE).write_bytes(self._model.tokenizer)
        tokenizer = TextTokenizer(self._folder / TOKENIZER_FILE, max_tokens=self._model.max_tokens)
        graphs = self._build(tokenizer)
        self._report("checking against the reference", 0.5)
        parity = check_parity(self._model, graphs, tokenizer.tokenize(PARITY_TEXTS).ids)
        self._report("writing", 0.8)
        files = {MODEL_FILES["fp32"]: graphs.portable, MODEL_FILES["int8"]: graphs.int8, ENCODER_FILE: graphs.fp16}
        for name, graph in files.items():
            if graph is not None:
                (self._folder / name).write_bytes(graph)
        plan = None if self._builder is None else self._plan(self._builder, timing_cache)
        manifest = self._describe(parity, plan)
        manifest.save(self._folder)
        return manifest

    def _build(self, tokenizer: TextTokenizer) -> Graphs:
        self._report("building the graphs", 0.1)
        graphs = Graphs(
            portable=build_bert(self._model, dialect="portable").SerializeToString(),
            fp16=build_padded(self._model).SerializeToString() if self._is_for_gpus else None,
        )
        if not self._has_int8:
            return graphs
        plain = build_bert(self._model, dialect="cpu")
        self._report("quantising to int8", 0.3)
        calibration = calibrate(plain, tokenizer.tokenize(CALIBRATION_TEXTS).ids)
        cpu = build_bert(self._model, dialect="cpu", factors=calibration.factors)
        int8 = quantise(cpu, calibration.largest)
        return replace(graphs, cpu=cpu.SerializeToString(), int8=int8.SerializeToString())

    def _plan(self, builder: PlanBuilder, timing_cache: Path) -> PlanRecord:
        self._report("building the TensorRT engine, which takes minutes", 0.85)
        return builder.build(
            PlanOrder(
                onnx=self._folder / ENCODER_FILE,
                plan=self._folder / PLAN_FILE,
                timing_cache=timing_cache,
                buckets=self._buckets.lengths,
                max_batch=MAX_BATCH,
            )
        )

    def _describe(self, parity: Parity, plan: PlanRecord | None) -> EmbedderManifest:
        model = self._model
        names: Mapping[str, Path] = {path.name: path for path in sorted(self._folder.iterdir())}
        return EmbedderManifest(
            name=model.name,
            architecture=model.config.architecture,
            dim=model.config.hidden_size,
            max_tokens=model.max_tokens,
            pooling=model.pooling,
            fingerprint=model.fingerprint,
            files={name: record_file(path) for name, path in names.items()},
            parity=parity,
            query_prefix=model.query_prefix,
            passage_prefix=model.passage_prefix,
            plan=plan,
        )
