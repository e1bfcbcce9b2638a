"""`tritonrag export generator`: a language model in, a generator folder out, checked before it takes its place."""

from collections.abc import Mapping
from pathlib import Path

from tritonrag_backends.generation.genai.format import (
    MANIFEST_FILE,
    Execution,
    GeneratorManifest,
    Precision,
)
from tritonrag_export.generator.build import check_precision
from tritonrag_export.generator.lora import read_adapter
from tritonrag_export.generator.making import ExportJob, Report
from tritonrag_export.generator.process import run_worker
from tritonrag_export.generator.source import check_libraries, find_source
from tritonrag_export.generator.staging import check_output, staged


def export_generator(
    source: Path | None,
    output: Path,
    *,
    precision: Precision = "int8",
    execution: Execution = "cpu",
    adapters: Mapping[str, Path] | None = None,
    report: Report | None = None,
) -> GeneratorManifest:
    """Export the model at `source` (a folder, a .gguf file; None: the packaged SmolLM2) into the folder `output`.

    A generator that lies there is replaced; a folder with anything else in it is refused. `adapters` are PEFT folders by the
    name that a request will use. `report` is told each step's name and the fraction done, 0 to 1. A failed export leaves
    what there was. Raises NotFoundError and BadRequestError (source, output, precision, adapters), UnavailableError
    (a library is missing), InternalError (the export crashed, or its parity is bad).
    """
    report = report or _silent
    adapters = adapters or {}
    check_precision(precision, execution)
    check_output(output, MANIFEST_FILE)
    for name, folder in adapters.items():
        read_adapter(name, folder)  # in milliseconds, before minutes of building
    found = find_source(source)
    check_libraries(found)
    with staged(output) as staging:
        job = ExportJob(
            source=found,
            folder=staging.folder,
            scratch=staging.scratch,
            precision=precision,
            execution=execution,
            adapters=adapters,
        )
        report("starting", 0.0)
        run_worker("genai", job, report)
    report("done", 1.0)
    return GeneratorManifest.load(output, verify=False)


def _silent(_step: str, _fraction: float) -> None:
    pass
