"""ONNX Runtime GenAI's model builder as we call it: a model folder in, a graph with its description and tokenizer out."""

from pathlib import Path
from typing import Final

from tritonrag_backends.generation.genai.format import Execution, Precision
from tritonrag_client.errors import BadRequestError

# The builder writes FP16 for a CPU too, but ONNX Runtime 1.31 fails to run it (SmolLM2: an error in a Cast node).
PRECISIONS: Final[dict[Execution, tuple[Precision, ...]]] = {
    "cpu": ("int4", "int8", "fp32"),
    "cuda": ("int4", "int8", "fp16", "fp32"),
}
# Measured on SmolLM2-135M, tokens as in fp32, megabytes: the builder's own default 0.53 and 90, k_quant 0.62 and 92,
# with the last product in int8 0.67 and 107, with llama.cpp's choice of layers in int8 too 0.76 and 117, all as fast.
_INT4: Final[dict[str, str]] = {
    "algo_config": "k_quant",
    "matmul_mixed_precision": "last_matmul:int8,mixed_layers:int8",
}


def check_precision(precision: Precision, execution: Execution) -> None:
    """Raises BadRequestError for a precision that can't be served where the model will run."""
    if execution not in PRECISIONS:
        raise BadRequestError(f"execution is {execution!r}; use one of {', '.join(PRECISIONS)}")
    if precision not in PRECISIONS[execution]:
        raise BadRequestError(
            f"precision {precision} can't be exported for {execution}; use one of {', '.join(PRECISIONS[execution])}"
        )


def build(
    checkpoint: Path, folder: Path, *, precision: Precision, execution: Execution, with_adapters: bool, cache: Path
) -> None:
    """Write the model in `checkpoint` to `folder`; `cache` is a folder for scratch. Raises BadRequestError.

    With adapters the query, key and value projections stay apart, so that each can bear its own adapter.
    """
    from onnxruntime_genai.models.builder import create_model, parse_extra_options  # noqa: PLC0415 - loads torch

    options = _options(precision, execution, with_adapters=with_adapters)
    place = ("", str(checkpoint), str(folder), precision, execution, str(cache))
    try:
        create_model(*place, **parse_extra_options(*place, [f"{key}={value}" for key, value in options.items()]))
    except (NotImplementedError, ValueError) as error:
        raise BadRequestError(f"the model can't be exported as {precision} for {execution}: {error}") from error


def _options(precision: Precision, execution: Execution, *, with_adapters: bool) -> dict[str, str]:
    options = {"hf_token": "false", "hf_remote": "false"}
    if precision == "int4":
        options |= _INT4
    if with_adapters:
        # Adapters need the library's Generator, and paged attention its Engine: one model can't have both.
        return options | {"fuse_qkv": "false"}
    if execution == "cuda" and precision != "fp32":  # FP16 inputs and outputs, which paged attention asks for
        return options | {"use_paged_attention": "true"}
    return options
