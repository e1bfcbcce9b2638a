"""How a replay asks our server: searches, or answers that are streamed."""

from collections.abc import Callable
from typing import Final, Literal, get_args

from tritonrag_client import AsyncRagClient, RetryPolicy, SearchResult, Timeouts
from tritonrag_client.errors import BadRequestError
from tritonrag_client.options import AnswerModel
from tritonrag_perf.trace.replaying import Reply, Send

Model = Literal["retrieve", "generator", "rag"]
MODELS: Final = get_args(Model)


def client_of(url: str, model: Model, *, timeout_s: float) -> AsyncRagClient:
    """A client that tries once: what fails is to be counted, not hidden by a retry. Raises BadRequestError."""
    timeouts = Timeouts(connect_s=min(5.0, timeout_s), total_s=timeout_s)
    answers: AnswerModel = "rag" if model == "rag" else "generator"
    return AsyncRagClient(url, model=answers, timeouts=timeouts, retry=RetryPolicy(attempts=1))


def sender(client: AsyncRagClient, model: Model, *, num_passages: int | None, max_tokens: int | None) -> Send:
    """What a replay calls. Raises BadRequestError for an option that the model does not know."""
    if model == "retrieve" and max_tokens is not None:
        raise BadRequestError("max_tokens is for models that answer; leave it out with retrieve")

    async def search(question: str, first: Callable[[], None]) -> Reply:
        result = await client.search(question, num_passages=num_passages)
        first()
        assert isinstance(result, SearchResult)  # noqa: S101 - one question gives one result
        return Reply(passages=tuple(scored.passage for scored in result.passages), degraded=bool(result.degraded))

    async def answer(question: str, first: Callable[[], None]) -> Reply:
        degraded = False
        async with client.stream(question, num_passages=num_passages, max_tokens=max_tokens) as stream:
            async for delta in stream:
                first()
                degraded = degraded or bool(delta.degraded)
        sources = tuple(source.passage for source in stream.sources)
        return Reply(passages=sources, degraded=degraded, broken_off=stream.finish_reason == "error")

    return search if model == "retrieve" else answer
