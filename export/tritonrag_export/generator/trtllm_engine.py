"""`tritonrag export generator --to tensorrt-llm`: a checkpoint for TensorRT-LLM, and where asked for a legacy engine of it."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError, UnavailableError
from tritonrag_export.generator.making import Report
from tritonrag_export.generator.process import run_worker
from tritonrag_export.generator.source import check_libraries, find_source
from tritonrag_export.generator.staging import Staging, check_output, staged
from tritonrag_export.generator.trtllm import MANIFEST_FILE, CheckpointJob, Quantise, check_modelopt

ENGINE_FILE: Final = "config.json"  # trtllm-build writes it beside rank0.engine
_BUILDER: Final = "trtllm-build"
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def export_checkpoint(
    source: Path | None,
    output: Path,
    *,
    quantise: Quantise = "none",
    calibration: Path | None = None,
    engine_dir: Path | None = None,
    report: Report | None = None,
) -> None:
    """Prepare the model at `source` (as `export_generator` takes it) in `output`, and an engine of it in `engine_dir`.

    Without an engine the checkpoint is the one that the LLM API loads; with one it is of the legacy form. Both folders
    appear whole or not at all. Raises NotFoundError and BadRequestError (source, output, calibration texts),
    UnavailableError (ModelOpt, trtllm-build or another library is missing), InternalError (a step failed).
    """
    report = report or _silent
    check_output(output, MANIFEST_FILE)
    found = find_source(source)
    check_libraries(found)
    if calibration is not None and not calibration.is_file():
        raise NotFoundError(f"there are no calibration texts at {calibration}; give a file with one text a line")
    if quantise != "none" or engine_dir is not None:
        check_modelopt()
    builder = _find_builder(output, engine_dir) if engine_dir is not None else ""
    with staged(output) as staging:
        job = CheckpointJob(
            source=found,
            folder=staging.folder,
            scratch=staging.scratch,
            quantise=quantise,
            form="legacy" if engine_dir is not None else "unified",
            calibration=calibration,
        )
        report("starting", 0.0)
        run_worker("tensorrt-llm", job, report)
        if engine_dir is not None:
            report("building the engine", 0.9)
            _build(builder, staging, engine_dir)
    report("done", 1.0)


def _silent(_step: str, _fraction: float) -> None:
    pass


def _find_builder(output: Path, engine_dir: Path) -> str:
    if engine_dir.absolute() == output.absolute():
        raise BadRequestError(f"the engine and the checkpoint can't both lie in {output}; name another --engine-dir")
    check_output(engine_dir, ENGINE_FILE)
    builder = shutil.which(_BUILDER)
    if builder is None:
        raise UnavailableError(
            f"{_BUILDER} is not on PATH: this TensorRT-LLM builds no engine folders, or is not installed; leave "
            f"--engine-dir out: the LLM API builds from the checkpoint itself when the model is loaded"
        )
    return builder


def _build(builder: str, staging: Staging, engine_dir: Path) -> None:
    with staged(engine_dir) as engine:
        command = [builder, "--checkpoint_dir", str(staging.folder), "--output_dir", str(engine.folder)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0 or not (engine.folder / ENGINE_FILE).is_file():
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise InternalError(f"{_BUILDER} failed: {lines[-1] if lines else f'exit status {done.returncode}'}")
        for name in _TOKENIZER_FILES:
            if (staging.folder / name).is_file():
                shutil.copyfile(staging.folder / name, engine.folder / name)
