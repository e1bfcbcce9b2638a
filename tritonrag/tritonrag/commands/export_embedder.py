"""`tritonrag export embedder`: the embedding model as ONNX, in a folder that serving reads."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tritonrag.settings import settings_from
from tritonrag.terminal import Steps, bold, open_steps, write, write_json
from tritonrag_backends.embedding.format import EmbedderManifest, Pooling
from tritonrag_backends.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderRequest:
    """What the command line asks for; None: as the model's folder or the settings say."""

    source: Path | None = None
    output: Path | None = None
    to: Literal["onnx", "onnx-fp16", "tensorrt"] = "onnx"
    int8: bool = True
    pooling: Pooling | None = None
    query_prefix: str | None = None
    passage_prefix: str | None = None
    buckets: str | None = None
    json: bool = False


def run(request: EmbedderRequest) -> None:
    """Export and say what came out; `output` None is where `serve` looks for it."""
    began = time.monotonic()
    settings = settings_from(embedder=request.output, encoder_buckets=request.buckets)
    folder = settings.embedder.model
    with open_steps() as steps:
        _export(request, folder, settings.encoder.buckets, steps)
    _announce(folder, time.monotonic() - began, json=request.json)


def export(source: Path | None, folder: Path, steps: Steps) -> None:
    """Export the model at `source` (None: the packaged one) to `folder` for CPUs, telling of each step."""
    _export(EmbedderRequest(source=source), folder, Settings().encoder.buckets, steps)


def _export(request: EmbedderRequest, folder: Path, buckets: str, steps: Steps) -> None:
    # These load onnx, which asking for help does not need.
    from tritonrag_export.embedder.exporter import ExportOptions, export_embedder  # noqa: PLC0415
    from tritonrag_export.embedder.source import SourceOptions  # noqa: PLC0415

    source = SourceOptions(
        pooling=request.pooling, query_prefix=request.query_prefix, passage_prefix=request.passage_prefix
    )
    options = ExportOptions(target=request.to, int8=request.int8, source=source, buckets=buckets)
    export_embedder(request.source, folder, _Report(steps), options=options)


class _Report:
    """The exporter's reports, a step's name and the whole's fraction from 0 to 1, as steps."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._step = ""

    def __call__(self, step: str, fraction: float) -> None:
        if step != self._step and fraction < 1:
            self._step = step
            self._steps.step(f"embedding model: {step}")


def _announce(folder: Path, seconds: float, *, json: bool) -> None:
    manifest = EmbedderManifest.load(folder, verify=False)
    parity = manifest.parity
    if json:
        write_json(
            {
                "output": str(folder),
                "name": manifest.name,
                "dim": manifest.dim,
                "max_tokens": manifest.max_tokens,
                "fingerprint": manifest.fingerprint,
                "fp32_max_abs_difference": parity.fp32_max_abs_difference,
                "int8_min_cosine": parity.int8_min_cosine,
                "fp16_min_cosine": parity.fp16_min_cosine,
                "pooling": manifest.pooling,
                "query_prefix": manifest.query_prefix,
                "passage_prefix": manifest.passage_prefix,
                "files": sorted(manifest.files),
                "plan": None if manifest.plan is None else asdict(manifest.plan),
                "seconds": round(seconds, 3),
            }
        )
        return
    write(
        f"{bold(manifest.name)} is in {folder}: {manifest.dim} dimensions, {manifest.max_tokens} tokens, {seconds:.1f} s"
    )
    int8 = parity.int8_min_cosine
    write(
        f"  parity over {parity.texts} texts: fp32 differs by at most {parity.fp32_max_abs_difference:.1g},"
        f" {'there is no int8' if int8 is None else f'int8 has a cosine of at least {int8:.4f}'}"
    )
    if manifest.query_prefix or manifest.passage_prefix:
        write(f"  prefixes: {manifest.query_prefix!r} before queries, {manifest.passage_prefix!r} before passages")
    if parity.fp16_min_cosine is not None:
        write(f"  for GPUs: fp16 has a cosine of at least {parity.fp16_min_cosine:.6f}, computed on this CPU")
    if (plan := manifest.plan) is not None:
        lengths = ", ".join(map(str, plan.buckets))
        write(
            f"  TensorRT {plan.tensorrt} engine for {plan.gpu} (compute capability {plan.compute_capability}):"
            f" texts of up to {lengths} tokens, batches of up to {plan.max_batch}"
        )
