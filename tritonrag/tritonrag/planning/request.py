"""What a plan is asked for, read from what a person writes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from tritonrag.planning.cards import Card, parse_gpus
from tritonrag.planning.language_model import LanguageModel, parse_size
from tritonrag.planning.model_config import read_model_folder
from tritonrag.planning.quantities import GB, parse_count
from tritonrag.planning.roofline import Answer
from tritonrag_backends.choices import VectorType
from tritonrag_backends.index.format import MOST_DIM
from tritonrag_client.errors import BadRequestError

Where = Literal["auto", "cpu", "gpu"]
VectorChoice = Literal["auto", "fp32", "fp16", "int8"]
SearchChoice = Literal["auto", "dense", "hybrid"]

# Our assumption where nobody says: little beside an H100 or H200, more than the smallest rented machines with an L4 have.
ASSUMED_CORES_A_GPU: Final = 8
ASSUMED_GB_A_GPU: Final = 64
# English, about four bytes a token. With 5 passages of 253 bytes a prompt of the default template had 590 to 764 tokens
# (docs/benchmarks/generation.md): 5 x (63 + 20) and some 220 for rules, history and question.
BYTES_A_TOKEN: Final = 4
FENCE_TOKENS: Final = 20
FRAME_TOKENS: Final = 220


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The command's options as they were given; None: not given."""

    passages: str
    dim: int = 384
    llm: str = "none"
    gpus: str = "none"
    qps: float = 1.0
    cores: int | None = None
    memory_gb: float | None = None
    num_passages: int = 5
    bytes_per_passage: int = 640
    prompt_tokens: int | None = None
    answer_tokens: int = 256
    first_token_ms: float | None = None
    recall: float = 0.95
    vectors: VectorChoice = "auto"
    fp16: bool = True
    kv: Literal["auto", "fp8"] = "auto"
    mode: SearchChoice = "auto"
    retrieval: Where = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """The same, checked: sizes in bytes, times in seconds, the model and the GPU as figures.

    `assumed_host`: cores and memory were not given. `model_folder`: where the model was read from, if it was.
    """

    rows: int
    dim: int
    model: LanguageModel | None
    model_folder: Path | None
    gpus: int
    card: Card | None
    cores: int
    memory_bytes: int
    assumed_host: bool
    qps: float
    num_passages: int
    text_bytes: int
    answer: Answer
    first_token_limit_s: float | None
    recall: float
    vectors: tuple[VectorType, ...]
    fp16: bool
    fp8_kv: bool
    mode: SearchChoice
    retrieval: Where


def read_request(options: PlanOptions) -> PlanRequest:
    """Check the options; raises BadRequestError that names the option, its value and the way out."""
    gpus, card = parse_gpus(options.gpus)
    if (options.cores is None) != (options.memory_gb is None) or (gpus == 0 and options.cores is None):
        raise BadRequestError("of --cores and --memory-gb both are needed, or with GPUs neither")
    _within("--dim", options.dim, 1, MOST_DIM)
    _within("--qps", options.qps, 1e-6, 1e9)
    _within("--recall", options.recall, 0.01, 1)
    _within("--num-passages", options.num_passages, 1, 10_000)
    _within("--bytes-per-passage", options.bytes_per_passage, 1, 10**7)
    if options.retrieval == "gpu" and gpus == 0:
        raise BadRequestError("--retrieval is 'gpu' and --gpus 'none'; name the GPUs, or take cpu")
    model, folder = _model(options)
    cores = options.cores if options.cores is not None else gpus * ASSUMED_CORES_A_GPU
    memory_gb = options.memory_gb if options.memory_gb is not None else gpus * ASSUMED_GB_A_GPU
    _within("--cores", cores, 1, 10**6)
    _within("--memory-gb", memory_gb, 0.1, 10**6)
    return PlanRequest(
        rows=parse_count(options.passages, what="--passages"),
        dim=options.dim,
        model=model,
        model_folder=folder,
        gpus=gpus,
        card=card,
        cores=cores,
        memory_bytes=round(memory_gb * GB),
        assumed_host=options.cores is None,
        qps=options.qps,
        num_passages=options.num_passages,
        text_bytes=options.bytes_per_passage,
        answer=_answer(options),
        first_token_limit_s=_limit_s(options.first_token_ms),
        recall=options.recall,
        vectors=("fp32", "fp16", "int8") if options.vectors == "auto" else (options.vectors,),
        fp16=options.fp16,
        fp8_kv=options.kv == "fp8",
        mode=options.mode,
        retrieval=options.retrieval,
    )


def prompt_tokens(*, num_passages: int, text_bytes: int) -> int:
    """Tokens of a prompt: the frame (rules, question), and each passage with its fence."""
    return FRAME_TOKENS + num_passages * (-(-text_bytes // BYTES_A_TOKEN) + FENCE_TOKENS)


def _answer(options: PlanOptions) -> Answer:
    derived = prompt_tokens(num_passages=options.num_passages, text_bytes=options.bytes_per_passage)
    prompt = derived if options.prompt_tokens is None else options.prompt_tokens
    _within("--prompt-tokens", prompt, 1, 10**7)
    _within("--answer-tokens", options.answer_tokens, 1, 10**6)
    return Answer(prompt_tokens=prompt, answer_tokens=options.answer_tokens)


def _limit_s(first_token_ms: float | None) -> float | None:
    if first_token_ms is None:
        return None
    _within("--time-to-first-token-ms", first_token_ms, 0.001, 10**8)
    return first_token_ms / 1000


def _model(options: PlanOptions) -> tuple[LanguageModel | None, Path | None]:
    if options.llm.strip().lower() == "none":
        return None, None
    folder = Path(options.llm)
    is_folder = folder.is_dir()
    model = read_model_folder(folder) if is_folder else parse_size(options.llm)
    if options.kv == "fp8":
        model = replace(model, kv_value_bytes=1.0)
    return model, folder.absolute() if is_folder else None


def _within(name: str, value: float, least: float, most: float) -> None:
    # Written so that NaN is refused.
    if not least <= value <= most:
        raise BadRequestError(f"{name} is {value:g}; it must be from {least:g} to {most:g}")
