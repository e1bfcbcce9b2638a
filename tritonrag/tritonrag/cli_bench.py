"""`tritonrag bench` and `tritonrag bench prompt-reuse`: options in. What the commands do stands in `tritonrag.commands`."""

from pathlib import Path
from typing import Annotated

import typer

from tritonrag.options import (
    BenchBatches,
    BenchClients,
    BenchCount,
    BenchMetrics,
    BenchModels,
    BenchName,
    BenchOutput,
    BenchPlot,
    BenchQuestions,
    BenchQuick,
    BenchRates,
    BenchRounds,
    BenchUrl,
    BenchWindowS,
    EmbedderDir,
    IndexDir,
    Json,
)

bench_app = typer.Typer(invoke_without_command=True)

_Trace = Annotated[
    Path,
    typer.Option(
        envvar="TRITONRAG_BENCH_TRACE",
        metavar="DIR",
        help="Folder of a trace in RAGPulse's format (0_trace.jsonl ...).",
    ),
]
_CacheTokens = Annotated[
    list[int] | None,
    typer.Option(
        "--cache-tokens",
        envvar="TRITONRAG_BENCH_CACHE_TOKENS",
        min=1,
        help="Also with a KV cache of so many tokens; repeat for several. (default: an unbounded one alone)",
        show_default=False,
    ),
]
_BlockTokens = Annotated[
    int, typer.Option(envvar="TRITONRAG_BENCH_BLOCK_TOKENS", min=1, help="Tokens of a block of the KV cache.")
]
_ReuseOutput = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_BENCH_OUTPUT", metavar="DIR", help="Folder for the record: JSON, page.", show_default=False
    ),
]
_ReuseName = Annotated[
    str,
    typer.Option(envvar="TRITONRAG_BENCH_PROMPT_REUSE_NAME", help="File name of the record, without its ending."),
]


@bench_app.callback()
def bench(
    context: typer.Context,
    *,
    output: BenchOutput = None,
    index: IndexDir = None,
    embedder: EmbedderDir = None,
    url: BenchUrl = None,
    metrics_url: BenchMetrics = None,
    models: BenchModels = ["retrieve", "rag"],  # noqa: B006 - typer reads it and never changes it
    clients: BenchClients = None,
    request_rates: BenchRates = None,
    batches: BenchBatches = [1],  # noqa: B006
    questions: BenchQuestions = None,
    count: BenchCount = 500,
    rounds: BenchRounds = None,
    window_s: BenchWindowS = None,
    quick: BenchQuick = False,
    name: BenchName = "first-figures",
    plot: BenchPlot = True,
    json: Json = False,
) -> None:
    """Measure with perf_analyzer, and write the record; or what one of the commands says."""
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    if output is None:
        raise typer.BadParameter("give the folder for the record", param_hint="'--output'")
    from tritonrag.commands.bench import BenchRequest, run  # noqa: PLC0415 - heavy

    run(
        BenchRequest(
            output=output,
            index=index,
            embedder=embedder,
            url=url,
            metrics_url=metrics_url,
            models=tuple(models),
            clients=None if clients is None else tuple(clients),
            request_rates=tuple(request_rates or ()),
            batches=tuple(batches),
            questions=questions,
            count=count,
            rounds=rounds,
            window_s=window_s,
            quick=quick,
            name=name,
            plot=plot,
            json=json,
        )
    )


@bench_app.command("prompt-reuse")
def prompt_reuse(
    *,
    trace: _Trace,
    cache_tokens: _CacheTokens = None,
    block_tokens: _BlockTokens = 32,
    output: _ReuseOutput = None,
    name: _ReuseName = "prompt-reuse",
    json: Json = False,
) -> None:
    """Tell how many prompt tokens of a trace a KV cache has already, by the order of the prompts' parts."""
    from tritonrag.commands.bench_prompt_reuse import PromptReuseRequest, run  # noqa: PLC0415 - heavy

    run(
        PromptReuseRequest(
            trace=trace,
            cache_tokens=tuple(cache_tokens or ()),
            block_tokens=block_tokens,
            output=output,
            name=name,
            json=json,
        )
    )


def _refuse_options_before(context: typer.Context) -> None:
    """An option of `bench` itself would do nothing before another command's name."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"it stands before {context.invoked_subcommand}; give that command's options behind its name",
                param_hint=f"'{parameter.opts[0]}'",
            )
