"""`tritonrag ask`: a question to a running server."""

from tritonrag.answers import print_sources, print_stream, warn_degraded
from tritonrag.talking import connected, parse_filter
from tritonrag.terminal import write, write_json
from tritonrag_client.contract import Mode
from tritonrag_client.options import AnswerOptions


def run(
    question: str,
    *,
    url: str,
    num_passages: int | None,
    max_tokens: int | None,
    tenant: str | None,
    filter_json: str | None,
    stream: bool,
    timeout_s: float,
    json: bool,
    mode: Mode | None = None,
) -> None:
    """Print the answer and its sources; with `json` one line with text, sources, finish_reason and degraded."""
    options: AnswerOptions = {
        "num_passages": num_passages,
        "max_tokens": max_tokens,
        "tenant": tenant,
        "filter": parse_filter(filter_json),
        "mode": mode,
    }
    with connected(url, timeout_s=timeout_s) as client:
        if stream and not json:
            with client.stream(question, **options) as deltas:
                print_stream(deltas)
            return
        answer = client.ask(question, **options)
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
