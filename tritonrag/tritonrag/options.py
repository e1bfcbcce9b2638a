"""The options of the commands, each with its environment variable: where an option is a leaf of the settings, the leaf's."""

import os
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from tritonrag_client.contract import Mode
from tritonrag_client.errors import BadRequestError

_DIR = {"metavar": "DIR", "show_default": False}


def refuse_empty(parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """A callback of options that keep somebody out. Raises BadRequestError where the variable is set and empty.

    Such a one counts as not given: a secret that could not be read would turn TLS, or the look at clients' certificates, off.
    """
    variable = parameter.envvar
    if value is None and isinstance(variable, str) and os.environ.get(variable) == "":
        raise BadRequestError(f"the environment variable {variable} is set and empty; name a file, or unset it")
    return value


Json = Annotated[
    bool, typer.Option("--json", envvar="TRITONRAG_JSON", help="One line of JSON on stdout, for machines.")
]
EmbedderDir = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_EMBEDDER_MODEL", help="Embedding model's folder. (default: .tritonrag/embedder)", **_DIR
    ),
]
IndexDir = Annotated[
    Path | None, typer.Option(envvar="TRITONRAG_INDEX", help="Index directory. (default: .tritonrag/index)", **_DIR)
]
Url = Annotated[
    str, typer.Option(envvar="TRITONRAG_URL", help="The server's gRPC address, HOST:PORT; several with commas.")
]
TimeoutS = Annotated[float, typer.Option(envvar="TRITONRAG_TIMEOUT_S", help="Seconds for everything.")]
NumPassages = Annotated[
    int | None,
    typer.Option(
        envvar="TRITONRAG_NUM_PASSAGES", help="Passages to retrieve. (default: the server's)", show_default=False
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        envvar="TRITONRAG_MAX_TOKENS", help="Longest answer, in tokens. (default: the server's)", show_default=False
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_CLIENT_TLS_CA",
        metavar="FILE",
        help="Talk TLS, to a server whose certificate this authority signed (PEM).",
        show_default=False,
        callback=refuse_empty,
    ),
]
ClientCert = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert",
        envvar="TRITONRAG_CLIENT_TLS_CERT",
        metavar="FILE",
        help="Our certificate, for a server that asks for one (PEM).",
        show_default=False,
        callback=refuse_empty,
    ),
]
ClientKey = Annotated[
    Path | None,
    typer.Option(
        "--tls-key",
        envvar="TRITONRAG_CLIENT_TLS_KEY",
        metavar="FILE",
        help="Its private key.",
        show_default=False,
        callback=refuse_empty,
    ),
]
Tenant = Annotated[
    str | None, typer.Option(envvar="TRITONRAG_TENANT", help="Also see this tenant's passages.", show_default=False)
]
Filter = Annotated[
    str | None,
    typer.Option(envvar="TRITONRAG_FILTER", metavar="JSON", help="Condition on metadata.", show_default=False),
]

SearchMode = Annotated[
    Mode | None,
    typer.Option(
        "--mode", envvar="TRITONRAG_MODE", help="How to search. (default: as the index was built)", show_default=False
    ),
]

HealthUrl = Annotated[
    str, typer.Option("--url", envvar="TRITONRAG_HEALTH_URL", help="The server's health port, http://HOST:PORT.")
]

EvalQuestions = Annotated[
    Path,
    typer.Option(
        "--questions",
        envvar="TRITONRAG_EVAL_QUESTIONS",
        metavar="FILE|DIR",
        help="Questions with their right documents: a TSV (question, relevant, split) or a BEIR folder.",
    ),
]
EvalModes = Annotated[
    list[str], typer.Option("--mode", envvar="TRITONRAG_EVAL_MODE", help="Way to search; repeat for several.")
]
EvalCutoffs = Annotated[
    list[int], typer.Option("--k", envvar="TRITONRAG_EVAL_K", min=1, help="Recall at so many documents; repeat.")
]
EvalSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        envvar="TRITONRAG_EVAL_SPLIT",
        help="Only the questions of this split; with BEIR the name of the qrels.",
        show_default=False,
    ),
]
EvalOutput = Annotated[
    Path | None,
    typer.Option(envvar="TRITONRAG_EVAL_OUTPUT", help="Folder for the record: JSON, page, picture.", **_DIR),
]
EvalName = Annotated[
    str, typer.Option(envvar="TRITONRAG_EVAL_NAME", help="File name of the record, without its ending.")
]
EvalPlot = Annotated[
    bool, typer.Option("--plot/--no-plot", envvar="TRITONRAG_EVAL_PLOT", help="Draw the picture (matplotlib).")
]

Host = Annotated[str, typer.Option(envvar="TRITONRAG_HOST", help="Address to listen on.")]
Profile = Annotated[Literal["cpu", "gpu"], typer.Option(envvar="TRITONRAG_PROFILE", help="Model configurations.")]
ModelRepository = Annotated[
    Path | None, typer.Option(envvar="TRITONRAG_MODEL_REPOSITORY", help="Triton repository. (default: ours)", **_DIR)
]
AllowNonLoopback = Annotated[
    bool,
    typer.Option("--allow-non-loopback", envvar="TRITONRAG_ALLOW_NON_LOOPBACK", help="Let other machines connect."),
]
DrainTimeoutS = Annotated[
    int, typer.Option(envvar="TRITONRAG_DRAIN_TIMEOUT_S", min=0, help="Seconds that running requests get at the end.")
]
LogFile = Annotated[
    Path | None,
    typer.Option(envvar="TRITONRAG_LOG_FILE", metavar="FILE", help="Triton's log. (default: gone at the end)"),
]
BenchOutput = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_BENCH_OUTPUT",
        metavar="DIR",
        help="Folder for the record: JSON, page, picture. Needed.",
        show_default=False,
    ),
]
BenchName = Annotated[
    str, typer.Option(envvar="TRITONRAG_BENCH_NAME", help="File name of the record, without its ending.")
]
BenchUrl = Annotated[
    str | None,
    typer.Option(envvar="TRITONRAG_BENCH_URL", help="Measure this server's gRPC address. (default: one of our own)"),
]
BenchQuestions = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_BENCH_QUESTIONS", metavar="FILE", help="A question a line. (default: drawn from the index)"
    ),
]
BenchCount = Annotated[int, typer.Option(envvar="TRITONRAG_BENCH_COUNT", min=1, help="Questions to draw.")]
BenchModels = Annotated[
    list[str],
    typer.Option(
        "--model",
        envvar="TRITONRAG_BENCH_MODEL",
        help="Model to ask: embedder, retrieve, generator, rag; repeat for several.",
    ),
]
BenchClients = Annotated[
    list[int] | None,
    typer.Option(
        "--clients",
        envvar="TRITONRAG_BENCH_CLIENTS",
        min=1,
        help="Clients at once; repeat for several. (default: 1 and 32, none with --request-rate)",
        show_default=False,
    ),
]
BenchRates = Annotated[
    list[float] | None,
    typer.Option(
        "--request-rate",
        envvar="TRITONRAG_BENCH_REQUEST_RATE",
        help="Requests a second at random times, whatever is answered; repeat for several.",
        show_default=False,
    ),
]
BenchBatches = Annotated[
    list[int],
    typer.Option(
        "--batch",
        envvar="TRITONRAG_BENCH_BATCH",
        min=1,
        help="Questions in a request; repeat for several. Models that stream take one.",
    ),
]
BenchMetrics = Annotated[
    str | None,
    typer.Option(
        "--metrics-url",
        envvar="TRITONRAG_BENCH_METRICS_URL",
        help="Record this address's metrics. (default: with a server of our own, its metrics)",
        show_default=False,
    ),
]
BenchRounds = Annotated[
    int | None,
    typer.Option(envvar="TRITONRAG_BENCH_ROUNDS", min=1, help="Rounds. (default: 3, quick 1)", show_default=False),
]
BenchWindowS = Annotated[
    float | None,
    typer.Option(
        envvar="TRITONRAG_BENCH_WINDOW_S", help="Seconds of a window. (default: 2, quick 0.5)", show_default=False
    ),
]
BenchQuick = Annotated[
    bool, typer.Option("--quick", envvar="TRITONRAG_BENCH_QUICK", help="To see that it works: under two minutes.")
]
BenchPlot = Annotated[
    bool, typer.Option("--plot/--no-plot", envvar="TRITONRAG_BENCH_PLOT", help="Draw the picture (matplotlib).")
]
Verbose = Annotated[bool, typer.Option("--verbose", envvar="TRITONRAG_VERBOSE", help="Triton's log on stderr.")]


def to_mode(text: str) -> Mode:
    """A mode that came from a repeated option, which typer takes as text alone. Raises BadRequestError where there is none."""
    for mode in get_args(Mode):
        if mode == text:
            return mode  # type: ignore[no-any-return]  # get_args is untyped
    raise BadRequestError(f"--mode is {text!r}; use one of {', '.join(get_args(Mode))}")


def port_option(service: str) -> typer.models.OptionInfo:
    """An option for the port of a service (http, grpc, metrics)."""
    info: typer.models.OptionInfo = typer.Option(
        f"--{service}-port",
        envvar=f"TRITONRAG_{service.upper()}_PORT",
        min=0,
        max=65535,
        help=f"Port for {service}; 0 is a free one.",
    )
    return info
