"""`tritonrag export generator`: a language model for ONNX Runtime GenAI, or a checkpoint for TensorRT-LLM."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tritonrag.settings import STATE, settings_from
from tritonrag.terminal import Steps, bold, open_steps, write, write_json
from tritonrag_backends.generation.genai.format import Execution, GeneratorManifest, Parity, Precision
from tritonrag_client.errors import BadRequestError
from tritonrag_export.generator.trtllm import Quantise

GENAI: Final = "onnxruntime-genai"
TENSORRT_LLM: Final = "tensorrt-llm"
_CHECKPOINT_DIR: Final = STATE / "tensorrt-llm"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """The command's options as they came; None is not given."""

    source: Path | None
    to: str
    output: Path | None
    precision: Precision | None
    execution: Execution | None
    adapters: tuple[str, ...]
    quantise: Quantise | None
    calibration: Path | None
    engine_dir: Path | None
    json: bool


def run(request: ExportRequest) -> None:
    """Export and say what came out. Raises BadRequestError where options do not go together."""
    began = time.monotonic()
    if request.to == TENSORRT_LLM:
        _refuse(request.to, precision=request.precision, execution=request.execution, adapter=request.adapters)
        _export_checkpoint(request, began)
        return
    _refuse(GENAI, quantise=request.quantise, calibration=request.calibration, engine_dir=request.engine_dir)
    _export_genai(request, began)


def adapters_of(options: tuple[str, ...]) -> Mapping[str, Path]:
    """Adapters' folders by name, from NAME=DIR. Raises BadRequestError."""
    adapters: dict[str, Path] = {}
    for option in options:
        name, equals, folder = option.partition("=")
        if not equals or not folder:
            raise BadRequestError(f"--adapter is {option!r}; write NAME=DIR, with DIR as PEFT saves an adapter")
        if name in adapters:
            raise BadRequestError(f"--adapter names {name!r} twice; give each adapter a name of its own")
        adapters[name] = Path(folder)
    return adapters


def _refuse(engine: str, **options: object) -> None:
    for name, value in options.items():
        if value:
            raise BadRequestError(f"--{name.replace('_', '-')} means nothing for {engine}; leave it out")


def _output_of(request: ExportRequest) -> Path | None:
    """The folder that --to or --output names."""
    if request.to in {GENAI, TENSORRT_LLM}:
        return request.output
    if request.output is not None:
        raise BadRequestError(
            f"--to {request.to} and --output {request.output} both say where to write; give one of them"
        )
    return Path(request.to)


def _export_genai(request: ExportRequest, began: float) -> None:
    from tritonrag_export.generator.exporter import export_generator  # noqa: PLC0415 - loads onnx, which help does not need

    folder = settings_from(genai_model=_output_of(request)).genai.model
    with open_steps() as steps:
        manifest = export_generator(
            request.source,
            folder,
            precision=request.precision or "int8",
            execution=request.execution or "cpu",
            adapters=adapters_of(request.adapters),
            report=_Report(steps),
        )
    _announce(folder, manifest, time.monotonic() - began, json=request.json)


def _export_checkpoint(request: ExportRequest, began: float) -> None:
    from tritonrag_export.generator.trtllm_engine import export_checkpoint  # noqa: PLC0415 - not for every command

    folder = _output_of(request) or settings_from().trtllm.model or _CHECKPOINT_DIR
    quantise = request.quantise or "none"
    with open_steps() as steps:
        export_checkpoint(
            request.source,
            folder,
            quantise=quantise,
            calibration=request.calibration,
            engine_dir=request.engine_dir,
            report=_Report(steps),
        )
    seconds = time.monotonic() - began
    engine = request.engine_dir
    if request.json:
        write_json({"output": folder, "quantise": quantise, "engine_dir": engine, "seconds": round(seconds, 3)})
        return
    write(f"The checkpoint for TensorRT-LLM is in {folder}: quantised {quantise}, {seconds:.1f} s")
    if engine is not None:
        write(f"  its engine is in {engine}")
    write(f"  serve it with: tritonrag serve --engine tensorrt_llm --trtllm-model {engine or folder}")


class _Report:
    """The exporter's reports, a step's name and the whole's fraction from 0 to 1, as steps."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._step = ""

    def __call__(self, step: str, fraction: float) -> None:
        if step != self._step and fraction < 1:
            self._step = step
            self._steps.step(f"language model: {step}")


def _announce(folder: Path, manifest: GeneratorManifest, seconds: float, *, json: bool) -> None:
    size = sum(file.bytes for file in manifest.files.values())
    if json:
        facts = asdict(manifest)
        del facts["files"], facts["format_version"]
        write_json({"output": folder, **facts, "bytes": size, "seconds": round(seconds, 3)})
        return
    write(
        f"{bold(manifest.name)} is in {folder}: {manifest.precision} for {manifest.execution},"
        f" {size / 1e6:.0f} MB, {manifest.context_tokens} tokens of context, {seconds:.1f} s"
    )
    if manifest.parity is None:
        write("  not compared with transformers: that takes the hardware it is for")
    else:
        write(f"  {_parity(manifest.parity)}")
    for name, parity in manifest.adapter_parity.items():
        write(f"  with the adapter {name}: {_parity(parity)}")


def _parity(parity: Parity) -> str:
    return (
        f"against transformers in fp32: {parity.equal_tokens:.1%} of {parity.positions} tokens the same,"
        f" {parity.equal_answers} of {parity.prompts} answers; logits differ by at most {parity.max_abs_logit_difference:.2g}"
    )
