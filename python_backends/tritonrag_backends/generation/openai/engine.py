"""The `openai` engine: any OpenAI-compatible server, such as trtllm-serve, vLLM, TGI, Ray Serve or Ollama.

Three budgets of time, each with a setting: connecting (UnavailableError), the first token with all tries until then, and the whole
answer with its waiting for a place (both DeadlineError). A try is repeated only before the first token. A server that failed
several times in a row is left alone for a while. What each failure means stands in `failures`.
"""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager

from pydantic import SecretStr

from tritonrag_backends.generation.breaker import CircuitBreaker
from tritonrag_backends.generation.engine import Capabilities, Delta, Load, Message, Prompt, Sampling, require_able
from tritonrag_backends.generation.openai.address import bearer_key, chat_url, model_name
from tritonrag_backends.generation.openai.answer import Answer
from tritonrag_backends.generation.openai.chat_request import request_body, tenant_salt
from tritonrag_backends.generation.openai.chunks import Piece
from tritonrag_backends.generation.openai.exchange import Budget, Exchange
from tritonrag_backends.generation.openai.failures import ServerFailure, Verdict
from tritonrag_backends.generation.openai.retries import pause_s
from tritonrag_backends.generation.openai.server import Server
from tritonrag_backends.generation.openai.settings import OpenaiSettings
from tritonrag_backends.generation.openai.tokens import token_counter
from tritonrag_backends.generation.openai.waits import Places, Waits
from tritonrag_client.errors import DeadlineError

_VERSION = 1  # of what we ask for: part of the fingerprint


def open_openai(settings: OpenaiSettings, environment: Mapping[str, str] = os.environ) -> "OpenaiEngine":
    """The engine, ready for its first question; the network is left alone until then, so that a server may start after us.

    `environment` is where OPENAI_API_KEY is looked for. Raises BadRequestError or NotFoundError that name the variable at fault.
    """
    return OpenaiEngine(settings, bearer_key(settings, environment))


class OpenaiEngine:
    """Implements `Engine`. Raises what `open_openai` raises."""

    def __init__(self, settings: OpenaiSettings, key: SecretStr, rng: random.Random | None = None) -> None:
        url, model = chat_url(settings.url), model_name(settings)
        self._settings = settings
        self._key = key
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._count = token_counter(settings.tokenizer)
        self._server = Server(
            url,
            model=model,
            key=key,
            connections=settings.max_connections,
            connect_timeout_s=settings.connect_timeout_s,
        )
        self._waits = Waits()
        self._places = Places(slots=settings.max_connections, max_waiting=settings.max_waiting)
        self._breaker = CircuitBreaker(
            "the language model's server", failures=settings.breaker_failures, open_s=settings.breaker_open_s
        )
        self._capabilities = Capabilities(
            engine="openai",
            model=model,
            fingerprint=hashlib.sha256(repr((_VERSION, url, model)).encode()).hexdigest(),
            context_tokens=settings.context_tokens,
            reads_messages=True,
            seeds=True,
            lora_names=None,
        )

    @property
    def capabilities(self) -> Capabilities:
        """Adapters are the server's: any name is passed on."""
        return self._capabilities

    @property
    def load(self) -> Load:
        """Answers that hold a connection, and those that wait for one."""
        return Load(running=self._places.running, waiting=self._places.waiting, slots=self._places.slots)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """By the model's tokenizer.json where the settings name it, else estimated, rather too high; see `tokens`."""
        return self._count(messages)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """Deltas as the server's chunks come, the last with the tokens that the server counted, if it did.

        A reader that stalls holds its own connection and a bounded buffer, and its time goes on.
        """
        require_able(self._capabilities, sampling)
        salt = tenant_salt(prompt.tenant, self._key) if self._settings.cache_salt and prompt.tenant else None
        body = request_body(prompt, sampling, model=self._capabilities.model, salt=salt)
        answer, total = Answer(sampling.stop_words), self._total_budget()
        async with self._places.place(self._waits, total.by_s, total.spent):
            exchange, piece = await self._begin(
                body, self._first_token_budget(total), named=sampling.lora_name is not None
            )
            with exchange:
                while True:
                    if text := answer.push(piece):
                        yield Delta(text=text)
                    if answer.ended:
                        break
                    with _errors():
                        piece = await exchange.next_piece(total)
                await exchange.finish(answer)
        yield answer.last()

    async def close(self) -> None:
        """Break off all connections; what runs or waits ends with UnavailableError."""
        self._waits.close()
        await self._server.close()

    async def _begin(self, body: bytes, budget: Budget, *, named: bool) -> tuple[Exchange, Piece]:
        """Try until the model begins."""
        tries = 0
        with _errors():
            while True:
                tries += 1
                exchange = Exchange(self._server, self._breaker.admit(), self._waits)
                try:
                    return exchange, await exchange.begin(body, budget, named=named)
                except ServerFailure as failure:
                    wait_s = self._pause_s(failure.verdict, tries, budget)
                    if wait_s is None:
                        raise
                async with self._waits.until(budget.by_s, budget.spent):
                    await asyncio.sleep(wait_s)

    def _pause_s(self, verdict: Verdict, tries: int, budget: Budget) -> float | None:
        """Seconds until the next try; None where there should be none."""
        if not verdict.again or tries == self._settings.attempts or self._breaker.state == "open":
            return None
        wait_s = pause_s(tries, verdict.retry_after_s, self._rng)
        return wait_s if _now_s() + wait_s < budget.by_s else None

    def _total_budget(self) -> Budget:
        allowed_s = self._settings.total_timeout_s
        error = DeadlineError(
            f"the answer was not complete within {allowed_s:g} s (TRITONRAG_OPENAI_TOTAL_TIMEOUT_S); ask for fewer max_tokens"
        )
        return Budget(by_s=_now_s() + allowed_s, spent=error)

    def _first_token_budget(self, total: Budget) -> Budget:
        allowed_s = self._settings.first_token_timeout_s
        error = DeadlineError(
            f"the language model's server wrote nothing within {allowed_s:g} s (TRITONRAG_OPENAI_FIRST_TOKEN_TIMEOUT_S);"
            " try again when it is less busy"
        )
        return min(Budget(by_s=_now_s() + allowed_s, spent=error), total, key=lambda budget: budget.by_s)


@contextmanager
def _errors() -> Iterator[None]:
    """Inside, a failure of the server is a ServerFailure; outside, an error of our tree."""
    try:
        yield
    except ServerFailure as failure:
        raise failure.verdict.error from None


def _now_s() -> float:
    return asyncio.get_running_loop().time()
