"""`tritonrag export embedder`: the embedding model as ONNX, in a folder that serving reads."""

import time
from pathlib import Path

from tritonrag.settings import settings_from
from tritonrag.terminal import Steps, bold, open_steps, write, write_json
from tritonrag_backends.embedding.format import EmbedderManifest


def run(*, source: Path | None, output: Path | None, json: bool) -> None:
    """Export and say what came out; `output` None is where `serve` looks for it."""
    began = time.monotonic()
    folder = settings_from(embedder=output).embedder.model
    with open_steps() as steps:
        export(source, folder, steps)
    _announce(folder, time.monotonic() - began, json=json)


def export(source: Path | None, folder: Path, steps: Steps) -> None:
    """Export the model at `source` (None: the packaged one) to `folder`, telling of each step."""
    from tritonrag_export.embedder.exporter import export_embedder  # noqa: PLC0415 - loads onnx, which asking for help does not need

    export_embedder(source, folder, _Report(steps))


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
                "seconds": round(seconds, 3),
            }
        )
        return
    write(
        f"{bold(manifest.name)} is in {folder}: {manifest.dim} dimensions, {manifest.max_tokens} tokens, {seconds:.1f} s"
    )
    write(
        f"  parity over {parity.texts} texts: fp32 differs by at most {parity.fp32_max_abs_difference:.1g},"
        f" int8 has a cosine of at least {parity.int8_min_cosine:.4f}"
    )
