"""The `tritonrag` command: options in, exit status out. What the commands do stands in `tritonrag.commands`.

Exit status: 0 done, 1 failed, 2 the request or an option was wrong, 130, 143 and 129 stopped by Ctrl-C,
SIGTERM and a lost terminal (`serve`, once ready, has then done what it was told: 0).
"""

import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from tritonrag.ask_options import History, LoraName, Seed, StopWords, Strict, Temperature, TopP
from tritonrag.cli_bench import bench_app
from tritonrag.cli_export import export_app
from tritonrag.cli_index import index_app
from tritonrag.cli_plan import plan
from tritonrag.options import (
    AllowNonLoopback,
    ClientCert,
    ClientKey,
    DrainTimeoutS,
    EmbedderDir,
    EvalCutoffs,
    EvalModes,
    EvalName,
    EvalOutput,
    EvalPlot,
    EvalQuestions,
    EvalSplit,
    Filter,
    HealthUrl,
    Host,
    IndexDir,
    Json,
    LogFile,
    MaxTokens,
    ModelRepository,
    NumPassages,
    Profile,
    SearchMode,
    Tenant,
    TimeoutS,
    TlsCa,
    Url,
    Verbose,
    port_option,
    to_mode,
)
from tritonrag.serve_options import (
    AnswerCache,
    DrainDelayS,
    Engine,
    GeneratorModel,
    OpenaiModel,
    OpenaiUrl,
    OpenApi,
    PromptTemplate,
    ReadyTimeoutS,
    TlsCert,
    TlsClientCa,
    TlsKey,
    TritonDir,
    TrtllmModel,
)
from tritonrag.tls import to_tls
from tritonrag.variables import refuse_unknown, variables_of
from tritonrag_client.errors import BadRequestError, NotFoundError, RagError

app = typer.Typer(
    name="tritonrag",
    help="Retrieval-augmented generation served by NVIDIA Triton: question in, streamed and cited answer out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(index_app, name="index")
app.add_typer(export_app, name="export")
app.add_typer(bench_app, name="bench")
app.command()(plan)

EXIT_FAILED, EXIT_WRONG = 1, 2


@app.command()
def serve(
    *,
    index: IndexDir = None,
    embedder: EmbedderDir = None,
    http_port: Annotated[int, port_option("http")] = 8000,
    grpc_port: Annotated[int, port_option("grpc")] = 8001,
    metrics_port: Annotated[int, port_option("metrics")] = 8002,
    health_port: Annotated[int, port_option("health")] = 8003,
    host: Host = "127.0.0.1",
    profile: Profile = "cpu",
    engine: Engine = None,
    generator_model: GeneratorModel = None,
    trtllm_model: TrtllmModel = None,
    openai_url: OpenaiUrl = None,
    openai_model: OpenaiModel = None,
    prompt_template: PromptTemplate = None,
    answer_cache: AnswerCache = None,
    model_repository: ModelRepository = None,
    triton_dir: TritonDir = None,
    allow_non_loopback: AllowNonLoopback = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_client_ca: TlsClientCa = None,
    open_api: OpenApi = None,
    ready_timeout_s: ReadyTimeoutS = None,
    drain_delay_s: DrainDelayS = 0.0,
    drain_timeout_s: DrainTimeoutS = 30,
    log_file: LogFile = None,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Serve an index until Ctrl-C or SIGTERM."""
    options = locals()  # as ServeRequest names them, every one
    from tritonrag.commands.serve import ServeRequest, run  # noqa: PLC0415 - heavy

    run(ServeRequest(**options))


@app.command()
def health(*, url: HealthUrl = "http://127.0.0.1:8003", json: Json = False) -> None:
    """Ask a running server how it is. Exit status: 0 ready, 1 not ready, 2 nobody answers."""
    from tritonrag.commands.health import run  # noqa: PLC0415 - heavy

    run(url=url, json=json)


@app.command()
def ask(
    question: Annotated[str, typer.Argument()],
    *,
    url: Url = "127.0.0.1:8001",
    tls_ca: TlsCa = None,
    tls_cert: ClientCert = None,
    tls_key: ClientKey = None,
    num_passages: NumPassages = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    stop_words: StopWords = None,
    lora_name: LoraName = None,
    history: History = None,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", envvar="TRITONRAG_STREAM", help="Print while it is written.")
    ] = True,
    strict: Strict = False,
    mode: SearchMode = None,
    tenant: Tenant = None,
    filter: Filter = None,  # noqa: A002 - the contract's name
    timeout_s: TimeoutS = 120.0,
    json: Json = False,
) -> None:
    """Ask a question; prints the answer and its numbered sources."""
    from tritonrag.commands.ask import AskRequest, run  # noqa: PLC0415 - heavy

    run(
        AskRequest(
            question=question,
            url=url,
            tls=to_tls(tls_ca, tls_cert, tls_key),
            num_passages=num_passages,
            mode=mode,
            tenant=tenant,
            filter_json=filter,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop_words=tuple(stop_words or ()),
            lora_name=lora_name,
            strict=strict,
            history=history,
            stream=stream,
            timeout_s=timeout_s,
            json=json,
        )
    )


@app.command()
def search(
    question: Annotated[str, typer.Argument()],
    *,
    url: Url = "127.0.0.1:8001",
    tls_ca: TlsCa = None,
    tls_cert: ClientCert = None,
    tls_key: ClientKey = None,
    num_passages: NumPassages = None,
    mode: SearchMode = None,
    tenant: Tenant = None,
    filter: Filter = None,  # noqa: A002 - the contract's name
    timeout_s: TimeoutS = 30.0,
    json: Json = False,
) -> None:
    """Find the passages that fit a question best."""
    from tritonrag.commands.search import run  # noqa: PLC0415 - heavy

    run(
        question,
        url=url,
        tls=to_tls(tls_ca, tls_cert, tls_key),
        num_passages=num_passages,
        mode=mode,
        tenant=tenant,
        filter_json=filter,
        timeout_s=timeout_s,
        json=json,
    )


@app.command("eval")
def evaluate(
    *,
    questions: EvalQuestions,
    index: IndexDir = None,
    embedder: EmbedderDir = None,
    modes: EvalModes = ["dense", "lexical", "hybrid"],  # noqa: B006 - typer reads it and never changes it
    cutoffs: EvalCutoffs = [1, 5, 10],  # noqa: B006
    split: EvalSplit = None,
    num_passages: NumPassages = None,
    output: EvalOutput = None,
    name: EvalName = "retrieval-quality",
    plot: EvalPlot = True,
    json: Json = False,
) -> None:
    """Measure how well the index finds the right documents (recall, MRR, nDCG), in this process."""
    from tritonrag.commands.eval import run  # noqa: PLC0415 - heavy

    run(
        questions=questions,
        index=index,
        embedder=embedder,
        modes=tuple(map(to_mode, modes)),
        k=tuple(cutoffs),
        split=split,
        num_passages=num_passages,
        output=output,
        name=name,
        plot=plot,
        json=json,
    )


@app.command()
def doctor(
    *, index: IndexDir = None, embedder: EmbedderDir = None, triton_dir: TritonDir = None, json: Json = False
) -> None:
    """Check this machine, and say what to do about what is amiss."""
    from tritonrag.commands.doctor import run  # noqa: PLC0415 - heavy

    run(index=index, embedder=embedder, triton_dir=triton_dir, json=json)


@app.command()
def demo(*, embedder: EmbedderDir = None) -> None:
    """Index the running Python's documentation, serve it, ask three questions."""
    from tritonrag.commands.demo import run  # noqa: PLC0415 - heavy

    run(embedder=embedder)


def main() -> NoReturn:
    """Run the command; an error of ours is one line on stderr, without traceback."""
    # Unwinding, instead of dying on the spot, lets a command that runs a Triton take it down.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored, and so it stays
        signal.signal(signal.SIGHUP, _exit_on_signal)
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run the command with these arguments and give its exit status. Typer itself ends in SystemExit, 130 after Ctrl-C."""
    try:
        if any(name.startswith("TRITONRAG_") for name in os.environ) and "--help" not in arguments:
            refuse_unknown(os.environ, frozenset(variables_of(typer.main.get_command(app))))
        app(args=arguments, prog_name="tritonrag")
    except RagError as error:
        typer.echo(f"tritonrag: {error}", err=True)
        return EXIT_WRONG if isinstance(error, BadRequestError | NotFoundError) else EXIT_FAILED
    except OSError as error:  # what no command foresaw, such as a full disk behind stdout
        typer.echo(f"tritonrag: internal: {error}", err=True)
        return EXIT_FAILED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED
    return 0


def _exit_on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
