"""The export itself, from a source to a complete folder. Loads torch, so it runs in a process of its own (worker.py)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tritonrag_backends.generation.genai.format import (
    Execution,
    GeneratorManifest,
    Parity,
    Precision,
    fingerprint_of,
)
from tritonrag_backends.model_folder import record_file
from tritonrag_export.generator.build import build
from tritonrag_export.generator.gguf import write_checkpoint
from tritonrag_export.generator.lora import LoraAdapter, read_adapter
from tritonrag_export.generator.lora_graph import AdaptableGraph
from tritonrag_export.generator.parity import check_parity, measure_parity
from tritonrag_export.generator.source import Source, read_architecture

Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """What to make of what, and where: `folder` becomes the generator, `scratch` is for what is not kept; both are there."""

    source: Source
    folder: Path
    scratch: Path
    precision: Precision
    execution: Execution
    adapters: Mapping[str, Path]


def make(job: ExportJob, report: Report) -> GeneratorManifest:
    """Fill the job's folder. Raises what reading, building and checking raise."""
    adapters = [read_adapter(name, folder) for name, folder in job.adapters.items()]
    checkpoint = checkpoint_of(job.source, job.scratch, report)
    report("building the graph", 0.2)
    build(
        checkpoint,
        job.folder,
        precision=job.precision,
        execution=job.execution,
        with_adapters=bool(adapters),
        cache=job.scratch / "cache",
    )
    _add_adapters(job.folder, adapters)
    parity, by_adapter = _measure(job, checkpoint, adapters, report)
    report("writing", 0.9)
    manifest = _describe(job, read_architecture(checkpoint), parity, by_adapter)
    manifest.save(job.folder)
    return manifest


def checkpoint_of(source: Source, scratch: Path, report: Report) -> Path:
    """The source as a folder that transformers reads; a .gguf file is written out below `scratch`."""
    if not source.is_gguf:
        return source.path
    report("reading the weights", 0.0)
    write_checkpoint(source.path, scratch / "checkpoint")
    return scratch / "checkpoint"


def _add_adapters(folder: Path, adapters: list[LoraAdapter]) -> None:
    if not adapters:
        return
    graph = AdaptableGraph(folder)
    graph.add_adapters(adapters)
    for adapter in adapters:
        graph.write(adapter, folder)


def _measure(
    job: ExportJob, checkpoint: Path, adapters: list[LoraAdapter], report: Report
) -> tuple[Parity | None, Mapping[str, Parity]]:
    """Parity where this machine can run the graph: one for CUDA can't be measured without a GPU."""
    if job.execution != "cpu":
        return None, {}
    report("checking against transformers", 0.5)
    parity, by_adapter = measure_parity(job.folder, checkpoint, adapters)
    check_parity(parity, job.precision, job.source.name)
    for name, measured in by_adapter.items():
        check_parity(measured, job.precision, f"{job.source.name} with the adapter {name}")
    return parity, by_adapter


def _describe(
    job: ExportJob, architecture: str, parity: Parity | None, by_adapter: Mapping[str, Parity]
) -> GeneratorManifest:
    model = json.loads((job.folder / "genai_config.json").read_bytes())["model"]
    paths = sorted(path for path in job.folder.rglob("*") if path.is_file())
    files = {path.relative_to(job.folder).as_posix(): record_file(path) for path in paths}
    return GeneratorManifest(
        name=job.source.name,
        architecture=architecture,
        precision=job.precision,
        execution=job.execution,
        context_tokens=model["context_length"],
        vocab_size=model["vocab_size"],
        adapters=tuple(job.adapters),
        fingerprint=fingerprint_of(files),
        files=files,
        parity=parity,
        adapter_parity=by_adapter,
    )
