"""`tritonrag export ...`: options in. What the commands do stands in `tritonrag.commands`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tritonrag.options import EmbedderDir, Json

export_app = typer.Typer(help="Prepare models for serving.", no_args_is_help=True)

_EmbedderFrom = Annotated[
    Path | None,
    typer.Option(
        "--from",
        envvar="TRITONRAG_EXPORT_FROM",
        metavar="DIR",
        help="Model folder. (default: the packaged all-MiniLM-L6-v2)",
    ),
]
_EmbedderTo = Annotated[
    Literal["onnx", "onnx-fp16", "tensorrt"],
    typer.Option(
        "--to",
        envvar="TRITONRAG_EXPORT_EMBEDDER_TO",
        help="onnx: for CPUs. onnx-fp16: for GPUs too. tensorrt: that, and an engine for this machine's GPU.",
    ),
]
_Int8 = Annotated[
    bool,
    typer.Option(
        "--int8/--no-int8",
        envvar="TRITONRAG_EXPORT_INT8",
        help="For CPUs: int8 beside fp32. Without, serve with TRITONRAG_EMBEDDER_PRECISION=fp32.",
    ),
]
_Pooling = Annotated[
    Literal["mean", "cls", "last"] | None,
    typer.Option(
        envvar="TRITONRAG_EXPORT_POOLING",
        help="How tokens become one vector, for a folder that does not say.",
        show_default=False,
    ),
]
_QueryPrefix = Annotated[
    str | None,
    typer.Option(
        envvar="TRITONRAG_EXPORT_QUERY_PREFIX",
        metavar="TEXT",
        help="What goes before a question. (default: the folder's prompt, else nothing)",
        show_default=False,
    ),
]
_PassagePrefix = Annotated[
    str | None,
    typer.Option(
        envvar="TRITONRAG_EXPORT_PASSAGE_PREFIX",
        metavar="TEXT",
        help="What goes before a passage. (default: the folder's prompt, else nothing)",
        show_default=False,
    ),
]
_Buckets = Annotated[
    str | None,
    typer.Option(
        envvar="TRITONRAG_ENCODER_BUCKETS",
        metavar="TOKENS,TOKENS,...",
        help="Lengths that the engine is tuned for. (default: 16,32,64,128,256)",
        show_default=False,
    ),
]
_GeneratorFrom = Annotated[
    Path | None,
    typer.Option(
        "--from",
        envvar="TRITONRAG_EXPORT_GENERATOR_FROM",
        metavar="DIR|FILE.gguf",
        help="Model folder as transformers saves it, or a GGUF file. (default: the packaged SmolLM2-135M-Instruct)",
        show_default=False,
    ),
]
_To = Annotated[
    str,
    typer.Option(
        "--to",
        envvar="TRITONRAG_EXPORT_TO",
        metavar="DIR|onnxruntime-genai|tensorrt-llm",
        help="Where to write, as --output; or for which engine.",
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_EXPORT_OUTPUT",
        metavar="DIR",
        help="Where to write. (default: where `serve` looks: .tritonrag/generator)",
        show_default=False,
    ),
]
_Precision = Annotated[
    Literal["int4", "int8", "fp16", "fp32"] | None,
    typer.Option(envvar="TRITONRAG_EXPORT_PRECISION", help="Of the weights. (default: int8)", show_default=False),
]
_Execution = Annotated[
    Literal["cpu", "cuda"] | None,
    typer.Option(envvar="TRITONRAG_EXPORT_EXECUTION", help="Where it will run. (default: cpu)", show_default=False),
]
_Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        envvar="TRITONRAG_EXPORT_ADAPTER",
        metavar="NAME=DIR",
        help="LoRA adapter as PEFT saves it, by the name that requests use; repeat for several.",
        show_default=False,
    ),
]
_Quantise = Annotated[
    Literal["none", "fp8", "int4-awq", "nvfp4"] | None,
    typer.Option(
        envvar="TRITONRAG_EXPORT_QUANTISE", help="For tensorrt-llm, by ModelOpt. (default: none)", show_default=False
    ),
]
_Calibration = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_EXPORT_CALIBRATION",
        metavar="FILE",
        help="Texts to quantise by, one a line. (default: Python's documentation)",
        show_default=False,
    ),
]
_EngineDir = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_EXPORT_ENGINE_DIR",
        metavar="DIR",
        help="Also build an engine folder there, where the installed TensorRT-LLM has trtllm-build.",
        show_default=False,
    ),
]


@export_app.command("embedder")
def export_embedder(
    *,
    source: _EmbedderFrom = None,
    to: _EmbedderTo = "onnx",
    output: EmbedderDir = None,
    int8: _Int8 = True,
    pooling: _Pooling = None,
    query_prefix: _QueryPrefix = None,
    passage_prefix: _PassagePrefix = None,
    buckets: _Buckets = None,
    json: Json = False,
) -> None:
    """Export an embedding model to ONNX (fp32 and int8, for GPUs fp16), with a parity check; or to a TensorRT engine too."""
    from tritonrag.commands.export_embedder import EmbedderRequest, run  # noqa: PLC0415 - heavy

    run(
        EmbedderRequest(
            source=source,
            to=to,
            output=output,
            int8=int8,
            pooling=pooling,
            query_prefix=query_prefix,
            passage_prefix=passage_prefix,
            buckets=buckets,
            json=json,
        )
    )


@export_app.command("generator")
def export_generator(
    *,
    source: _GeneratorFrom = None,
    to: _To = "onnxruntime-genai",
    output: _Output = None,
    precision: _Precision = None,
    execution: _Execution = None,
    adapter: _Adapters = None,
    quantise: _Quantise = None,
    calibration: _Calibration = None,
    engine_dir: _EngineDir = None,
    json: Json = False,
) -> None:
    """Export a language model: for ONNX Runtime GenAI with its LoRA adapters, or a checkpoint for TensorRT-LLM."""
    from tritonrag.commands.export_generator import ExportRequest, run  # noqa: PLC0415 - heavy

    run(
        ExportRequest(
            source=source,
            to=to,
            output=output,
            precision=precision,
            execution=execution,
            adapters=tuple(adapter or ()),
            quantise=quantise,
            calibration=calibration,
            engine_dir=engine_dir,
            json=json,
        )
    )
