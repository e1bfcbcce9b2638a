"""`tritonrag ask`: a question to a running server."""

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from tritonrag.answers import print_sources, print_stream, warn_degraded
from tritonrag.talking import connected, parse_filter
from tritonrag.terminal import tell, write, write_json
from tritonrag_client import RagClient
from tritonrag_client.contract import Mode, Turn, decode_history
from tritonrag_client.errors import BadRequestError
from tritonrag_client.options import AnswerOptions, TlsOptions
from tritonrag_client.results import Answer

_STDIN = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRequest:
    """What the command was told. `history` is a file, or - for stdin; an empty `stop_words` says nothing."""

    question: str
    url: str
    tls: TlsOptions | None
    num_passages: int | None
    mode: Mode | None
    tenant: str | None
    filter_json: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop_words: tuple[str, ...]
    lora_name: str | None
    strict: bool
    history: Path | None
    stream: bool
    timeout_s: float
    json: bool


def run(request: AskRequest) -> None:
    """Print the answer and its sources; with `json` one line with text, sources, finish_reason and degraded.

    Ends in status 1, after all that came, where the answer broke off.
    """
    options = _options(request)
    with connected(request.url, timeout_s=request.timeout_s, tls=request.tls) as connection:
        options["timeouts"] = connection.patience.timeouts()
        if request.stream and not request.json:
            finish_reason = _ask_streaming(connection.client, request.question, options)
        else:
            answer = connection.client.ask(request.question, **options)
            _print(answer, json=request.json)
            finish_reason = answer.finish_reason
    if finish_reason == "error":
        if not request.json:
            tell("the answer broke off; what came is not the whole of it")
        raise typer.Exit(1)


def _options(request: AskRequest) -> AnswerOptions:
    return {
        "num_passages": request.num_passages,
        "mode": request.mode,
        "tenant": request.tenant,
        "filter": parse_filter(request.filter_json),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop_words": request.stop_words,
        "lora_name": request.lora_name,
        "strict": request.strict or None,  # a tensor only where it says something
        "history": _read_history(request.history),
    }


def _read_history(path: Path | None) -> list[Turn] | None:
    """The conversation in a file; raises BadRequestError where there is none."""
    if path is None:
        return None
    try:
        return decode_history(sys.stdin.buffer.read() if path == _STDIN else path.read_bytes())
    except OSError as error:
        raise BadRequestError(f"--history is {path}, which can't be read: {error.strerror}") from error
    except ValueError as error:
        raise BadRequestError(
            f"--history is {path}, which holds no conversation: {error}; "
            'give a JSON list of {"role": "user" or "assistant", "content": text}'
        ) from error


def _ask_streaming(client: RagClient, question: str, options: AnswerOptions) -> str:
    """Print the answer while it comes; its finish reason."""
    with client.stream(question, **options) as deltas:
        print_stream(deltas)
        return deltas.finish_reason


def _print(answer: Answer, *, json: bool) -> None:
    if json:
        sources = [source.to_dict() for source in answer.sources]
        write_json(
            {
                "text": answer.text,
                "sources": sources,
                "finish_reason": answer.finish_reason,
                "degraded": answer.degraded,
            }
        )
        return
    write(answer.text)
    print_sources(answer.sources)
    warn_degraded(answer.degraded)
