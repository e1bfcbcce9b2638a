"""Question, passages and history to a prompt that fits.

Rules and question always go in. Where not everything fits, the newest turns of the history get at most half of what is left, and
the passages the rest, best first; the first one that does not fit is cut behind a sentence. Nothing here is random.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Final, Literal

from tritonrag_backends.generation.engine import Message
from tritonrag_backends.prompting.frame import Quote, Selection, messages_of
from tritonrag_backends.prompting.selecting import Costs, select
from tritonrag_backends.prompting.template import PromptTemplate
from tritonrag_client.contract import Passage, Turn
from tritonrag_client.errors import BadRequestError

# Prose has 4 or 5. With more than this for each token that there is room for, nobody counts the whole first: 100 passages of 900
# characters fit into 4,096 tokens in 15 ms instead of 73.
_CHARACTERS_A_TOKEN: Final = 6
_VERSION: Final = 1  # of the way of building: part of the fingerprint, so that a cache forgets what another way built


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltPrompt:
    """A prompt and what went into it.

    Label i + 1 in the prompt is source `labels[i]`, 1 for the passage that ranked first. `left_out` passages and `history_left_out`
    turns did not fit, of `shortened` passages only the beginning did. `prompt_tokens` are counted, not estimated.
    """

    messages: tuple[Message, ...]
    labels: tuple[int, ...]
    left_out: int
    shortened: int
    history_left_out: int
    prompt_tokens: int


class PromptBuilder:
    """Builds the prompts of one engine. `count_tokens` counts what messages are as a prompt, chat template included.

    `context_tokens` bounds prompt and answer together, `max_tokens` (0: does not) the prompt alone. In canonical order passages
    are sorted by id, so that the same passages make the same beginning whatever their ranks. An empty `fence_key` is
    replaced by a random one: then fences, and what a KV cache holds of them, are this builder's own.
    """

    def __init__(
        self,
        template: PromptTemplate,
        *,
        count_tokens: Callable[[Sequence[Message]], int],
        context_tokens: int | None,
        order: Literal["canonical", "rank"],
        max_tokens: int = 0,
        fence_key: bytes,
    ) -> None:
        self._template = template
        self._count_tokens = count_tokens
        self._context_tokens = context_tokens
        self._order = order
        self._max_tokens = max_tokens
        self._fence_key = fence_key or secrets.token_bytes(32)

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same input may become another prompt, fences aside: part of cache keys."""
        parts = (_VERSION, self._template.fingerprint, self._context_tokens, self._order, self._max_tokens)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def build(
        self,
        *,
        question: str,
        passages: Sequence[Passage],
        passage_ids: Sequence[int],
        history: Sequence[Turn],
        max_tokens: int,
    ) -> BuiltPrompt:
        """The prompt for an answer of at most `max_tokens`; passages in rank order.

        One call of `count_tokens` where everything fits, else about one more for each passage and turn that is weighed.
        Raises BadRequestError where not even rules and question fit.
        """
        everything = Selection(quotes=self._quotes(passages, passage_ids), history=_from_user(history))
        room, turns = self._room(max_tokens), len(history)
        if room is None or everything.characters <= _CHARACTERS_A_TOKEN * room:
            built = self._built(question, everything, everything, turns)
            if room is None or built.prompt_tokens <= room:
                return built
        return self._fitted(question, everything, room, max_tokens, turns)

    def _fitted(self, question: str, everything: Selection, room: int, max_tokens: int, turns: int) -> BuiltPrompt:
        """The prompt of what goes into `room` tokens."""
        built = self._built(question, Selection(), everything, turns)
        left = room - built.prompt_tokens
        if left < 0:
            raise self._too_long(built.prompt_tokens, max_tokens)
        costs = replace(self._costs, count_tokens=cache(self._count_tokens))
        while left > 0:
            built = self._built(question, select(everything, left, costs), everything, turns)
            if built.prompt_tokens <= room:
                return built
            # What parts cost does not add up exactly to what the whole costs; what it is over is taken off.
            left -= built.prompt_tokens - room
        return self._built(question, Selection(), everything, turns)

    def _quotes(self, passages: Sequence[Passage], passage_ids: Sequence[int]) -> tuple[Quote, ...]:
        numbered = enumerate(zip(passages, passage_ids, strict=True), start=1)
        return tuple(
            Quote.whole(
                passage,
                source=source,
                order=passage_id if self._order == "canonical" else source,
                key=self._fence_key,
            )
            for source, (passage, passage_id) in numbered
        )

    def _room(self, max_tokens: int) -> int | None:
        """Tokens that the prompt may have; None: as many as it likes."""
        context = None if self._context_tokens is None else self._context_tokens - max_tokens
        return min((bound for bound in (context, self._max_tokens or None) if bound is not None), default=None)

    def _built(self, question: str, chosen: Selection, everything: Selection, turns: int) -> BuiltPrompt:
        messages = messages_of(self._template, question, chosen)
        return BuiltPrompt(
            messages=messages,
            labels=tuple(quote.source for quote in chosen.in_order),
            left_out=len(everything.quotes) - len(chosen.quotes),
            shortened=sum(quote.text != quote.passage.text for quote in chosen.quotes),
            history_left_out=turns - len(chosen.history),
            prompt_tokens=self._count_tokens(messages),
        )

    @cached_property
    def _costs(self) -> Costs:
        return Costs.measured(self._template, self._count_tokens)

    def _too_long(self, least: int, max_tokens: int) -> BadRequestError:
        bounds = []
        if self._context_tokens is not None:
            bounds.append(
                f"the model reads {self._context_tokens} in all, of which max_tokens keeps {max_tokens} for the answer"
            )
        if self._max_tokens:
            bounds.append(f"TRITONRAG_PROMPT_MAX_TOKENS is {self._max_tokens}")
        return BadRequestError(
            f"rules and question take {least} tokens, and {' and '.join(bounds)};"
            " ask a shorter question, or for a smaller max_tokens"
        )


def _from_user(history: Sequence[Turn]) -> tuple[Turn, ...]:
    """The history from the first user turn on: a chat never begins with an answer."""
    first = next((i for i, turn in enumerate(history) if turn.role == "user"), len(history))
    return tuple(history[first:])
