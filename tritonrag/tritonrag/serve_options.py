"""The options of `serve`: who writes the answers, each with the variable of its leaf in the settings, and who may do what."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tritonrag.options import refuse_empty
from tritonrag_backends.choices import EngineName

Engine = Annotated[
    EngineName | None,
    typer.Option(
        envvar="TRITONRAG_GENERATOR_ENGINE", help="Who writes the answers. (default: extractive)", show_default=False
    ),
]
GeneratorModel = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_GENAI_MODEL",
        metavar="DIR",
        help="Language model for onnxruntime_genai. (default: .tritonrag/generator)",
        show_default=False,
    ),
]
TrtllmModel = Annotated[
    str | None,
    typer.Option(
        envvar="TRITONRAG_TRTLLM_MODEL", metavar="DIR", help="Checkpoint for tensorrt_llm.", show_default=False
    ),
]
OpenaiUrl = Annotated[
    str | None,
    typer.Option(
        envvar="TRITONRAG_OPENAI_URL",
        metavar="URL",
        help="OpenAI-compatible server, up to /v1; its key comes from TRITONRAG_OPENAI_API_KEY.",
        show_default=False,
    ),
]
OpenaiModel = Annotated[
    str | None,
    typer.Option(
        envvar="TRITONRAG_OPENAI_MODEL", metavar="NAME", help="The model's name at that server.", show_default=False
    ),
]
TritonDir = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_TRITON_DIR",
        metavar="DIR",
        help="An installed Triton. (default: the wheel's, else /opt/tritonserver)",
        show_default=False,
    ),
]
ReadyTimeoutS = Annotated[
    float | None,
    typer.Option(
        envvar="TRITONRAG_READY_TIMEOUT_S",
        min=1,
        help="Seconds that loading may take. (default: 300; with --profile gpu 1800, for TensorRT builds its engines then)",
        show_default=False,
    ),
]
PromptTemplate = Annotated[
    str | None,
    typer.Option(
        envvar="TRITONRAG_PROMPT_TEMPLATE",
        metavar="NAME|FILE",
        help="Prompt template. (default: default)",
        show_default=False,
    ),
]
AnswerCache = Annotated[
    Literal["off", "memory", "redis"] | None,
    typer.Option(
        envvar="TRITONRAG_CACHE_STORE", help="Where known answers are kept. (default: off)", show_default=False
    ),
]
DrainDelayS = Annotated[
    float,
    typer.Option(
        envvar="TRITONRAG_DRAIN_DELAY_S",
        min=0,
        help="Seconds between not being ready any more and stopping: what sends requests here is to notice first.",
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_TLS_CERT",
        metavar="FILE",
        help="Certificate chain for gRPC, PEM, leaf first. HTTP and metrics, which know no TLS, then stay on this machine.",
        show_default=False,
        callback=refuse_empty,
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_TLS_KEY",
        metavar="FILE",
        help="Its private key, PEM.",
        show_default=False,
        callback=refuse_empty,
    ),
]
TlsClientCa = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_TLS_CLIENT_CA",
        metavar="FILE",
        help="Talk to those alone who show a certificate that this authority signed.",
        show_default=False,
        callback=refuse_empty,
    ),
]
OpenApi = Annotated[
    list[str] | None,
    typer.Option(
        "--open-api",
        envvar="TRITONRAG_OPEN_API",
        metavar="NAME",
        help="Leave one of Triton's restricted APIs open, as perf_analyzer needs model-config and statistics; repeat for several.",
        show_default=False,
    ),
]
