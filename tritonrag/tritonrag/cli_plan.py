"""`tritonrag plan`: options in. What it does stands in `tritonrag.commands.plan` and `tritonrag.planning`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tritonrag.options import Json

_Passages = Annotated[
    str, typer.Option(envvar="TRITONRAG_PLAN_PASSAGES", metavar="COUNT", help="Passages, as in 300k, 50M or 1.2B.")
]
_Dim = Annotated[int, typer.Option(envvar="TRITONRAG_PLAN_DIM", help="Values of a vector.")]
_Llm = Annotated[
    str,
    typer.Option(
        envvar="TRITONRAG_PLAN_LLM", metavar="SIZE-PRECISION|DIR|none", help="Language model: 8B-fp8, or its folder."
    ),
]
_Gpus = Annotated[
    str,
    typer.Option(
        envvar="TRITONRAG_PLAN_GPUS", metavar="NxNAME|none", help="GPUs: 4xH200, 1xL4, 2xcustom:GB,GB/s,TFLOP/s."
    ),
]
_Qps = Annotated[float, typer.Option(envvar="TRITONRAG_PLAN_QPS", help="Questions a second.")]
_Cores = Annotated[
    int | None,
    typer.Option(envvar="TRITONRAG_PLAN_CORES", help="Cores of the host. (default: 8 a GPU)", show_default=False),
]
_MemoryGb = Annotated[
    float | None,
    typer.Option(
        envvar="TRITONRAG_PLAN_MEMORY_GB", help="Memory of the host in GB. (default: 64 a GPU)", show_default=False
    ),
]
_NumPassages = Annotated[int, typer.Option(envvar="TRITONRAG_PLAN_NUM_PASSAGES", help="Passages in a prompt.")]
_BytesPerPassage = Annotated[
    int, typer.Option(envvar="TRITONRAG_PLAN_BYTES_PER_PASSAGE", help="Bytes of a passage's text, on average.")
]
_PromptTokens = Annotated[
    int | None,
    typer.Option(
        envvar="TRITONRAG_PLAN_PROMPT_TOKENS",
        help="Tokens of a prompt. (default: from passages and their bytes)",
        show_default=False,
    ),
]
_AnswerTokens = Annotated[int, typer.Option(envvar="TRITONRAG_PLAN_ANSWER_TOKENS", help="Tokens of an answer.")]
_FirstTokenMs = Annotated[
    float | None,
    typer.Option(
        "--time-to-first-token-ms",
        envvar="TRITONRAG_PLAN_TIME_TO_FIRST_TOKEN_MS",
        help="The longest that may pass on average before an answer begins.",
        show_default=False,
    ),
]
_Recall = Annotated[float, typer.Option(envvar="TRITONRAG_PLAN_RECALL", help="Recall@10 of the search; 1: exact.")]
_Vectors = Annotated[
    Literal["auto", "fp32", "fp16", "int8"],
    typer.Option(envvar="TRITONRAG_PLAN_VECTORS", help="How vectors are stored; auto: the widest that fit the host."),
]
_Fp16 = Annotated[
    bool, typer.Option("--fp16/--fp32", envvar="TRITONRAG_PLAN_FP16", help="Vectors in 2 bytes a value on a GPU.")
]
_Kv = Annotated[
    Literal["auto", "fp8"],
    typer.Option(envvar="TRITONRAG_PLAN_KV", help="Keys and values; auto: as the model has them."),
]
_Mode = Annotated[
    Literal["auto", "dense", "hybrid"],
    typer.Option(envvar="TRITONRAG_PLAN_MODE", help="How to search; auto: hybrid where the cores suffice."),
]
_Retrieval = Annotated[
    Literal["auto", "cpu", "gpu"],
    typer.Option(envvar="TRITONRAG_PLAN_RETRIEVAL", help="Where to search; auto: on the CPU where that suffices."),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_PLAN_OUTPUT",
        metavar="FILE",
        help="Write the settings there, for `serve`.",
        show_default=False,
    ),
]


def plan(
    *,
    passages: _Passages,
    dim: _Dim = 384,
    llm: _Llm = "none",
    gpus: _Gpus = "none",
    qps: _Qps = 1.0,
    cores: _Cores = None,
    memory_gb: _MemoryGb = None,
    num_passages: _NumPassages = 5,
    bytes_per_passage: _BytesPerPassage = 640,
    prompt_tokens: _PromptTokens = None,
    answer_tokens: _AnswerTokens = 256,
    first_token_ms: _FirstTokenMs = None,
    recall: _Recall = 0.95,
    vectors: _Vectors = "auto",
    fp16: _Fp16 = True,
    kv: _Kv = "auto",
    mode: _Mode = "auto",
    retrieval: _Retrieval = "auto",
    output: _Output = None,
    json: Json = False,
) -> None:
    """Tell what fits where and what limits it, by arithmetic; exit status 1 where what is asked for isn't reached."""
    from tritonrag.commands.plan import run  # noqa: PLC0415 - heavy
    from tritonrag.planning.request import PlanOptions  # noqa: PLC0415

    options = PlanOptions(
        passages=passages,
        dim=dim,
        llm=llm,
        gpus=gpus,
        qps=qps,
        cores=cores,
        memory_gb=memory_gb,
        num_passages=num_passages,
        bytes_per_passage=bytes_per_passage,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        first_token_ms=first_token_ms,
        recall=recall,
        vectors=vectors,
        fp16=fp16,
        kv=kv,
        mode=mode,
        retrieval=retrieval,
    )
    run(options, output=output, json=json)
