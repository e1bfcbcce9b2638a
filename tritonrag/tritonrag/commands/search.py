"""`tritonrag search`: the passages that fit a question best, from a running server."""

import json as json_format

from tritonrag.answers import excerpt, warn_degraded
from tritonrag.talking import connected, parse_filter
from tritonrag.terminal import bold, dim, write, write_json
from tritonrag_client.contract import Mode
from tritonrag_client.options import TlsOptions
from tritonrag_client.results import ScoredPassage


def run(
    question: str,
    *,
    url: str,
    num_passages: int | None,
    tenant: str | None,
    filter_json: str | None,
    timeout_s: float,
    json: bool,
    mode: Mode | None = None,
    tls: TlsOptions | None = None,
) -> None:
    """Print the passages, best first; with `json` one line with passages, index_version and degraded."""
    condition = parse_filter(filter_json)
    with connected(url, timeout_s=timeout_s, tls=tls) as connection:
        found = connection.client.search(
            question,
            num_passages=num_passages,
            tenant=tenant,
            filter=condition,
            mode=mode,
            timeouts=connection.patience.timeouts(),
        )
    if json:
        passages = [_to_dict(hit) for hit in found.passages]
        write_json({"passages": passages, "index_version": found.index_version, "degraded": found.degraded})
        return
    if not found.passages:
        write("no passage fits: none holds what was asked for, or none may be seen")
    for rank, hit in enumerate(found.passages, start=1):
        passage = hit.passage
        write(
            f"{bold(f'{rank}.')} {bold(passage.title)} {dim(f'{passage.uri}:{passage.start}-{passage.end}  {hit.score:.3g}')}"
        )
        write(f"   {excerpt(passage.text)}")
    warn_degraded(found.degraded)


def _to_dict(hit: ScoredPassage) -> dict[str, object]:
    return {"passage_id": hit.passage_id, "score": round(hit.score, 6), **json_format.loads(hit.passage.to_json())}
