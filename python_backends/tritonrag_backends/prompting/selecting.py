"""Which turns and passages go into a prompt that can't hold them all, by what each of them costs."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from tritonrag_backends.generation.engine import Message
from tritonrag_backends.prompting.frame import Quote, Selection
from tritonrag_backends.prompting.template import PromptTemplate
from tritonrag_backends.text.pieces import pieces
from tritonrag_client.contract import Turn

_LABEL = 10  # for counting: labels above 99 may cost a token more, and the finished prompt is counted anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Tokens of a prompt's parts.

    `alone` is what a prompt of one message has beside its text, `per_message` what each one more adds.
    """

    template: PromptTemplate
    count_tokens: Callable[[Sequence[Message]], int]
    alone: int
    per_message: int

    @classmethod
    def measured(cls, template: PromptTemplate, count_tokens: Callable[[Sequence[Message]], int]) -> "Costs":
        """Find out what the chat template adds, by prompts of one letter a message."""
        question, answer = Message(role="user", content="a"), Message(role="assistant", content="a")
        one, three = count_tokens([question]), count_tokens([question, answer, question])
        return cls(
            template=template,
            count_tokens=count_tokens,
            alone=max(one - 1, 0),
            per_message=max((three - one) // 2 - 1, 0),
        )

    def of_quote(self, quote: Quote) -> int:
        """Tokens that it adds to the prompt, the blank line before it included."""
        return self._of_text(f"\n\n{quote.render(self.template, _LABEL)}")

    def of_turn(self, turn: Turn) -> int:
        """Tokens that it adds to the prompt."""
        return self._of_text(turn.content) + self.per_message

    def _of_text(self, text: str) -> int:
        # As a user's message whoever said it: some chat templates refuse a chat that begins with the assistant.
        return max(self.count_tokens((Message(role="user", content=text),)) - self.alone, 1)


def select(everything: Selection, left: int, costs: Costs) -> Selection:
    """What of `everything` goes into `left` tokens."""
    wanted = _costs_up_to(everything.quotes, left, costs.of_quote)
    # What the passages leave is the history's, and half of it in any case.
    history, spent = _newest(everything.history, max(left // 2, left - sum(wanted)), costs)
    return Selection(quotes=_best(everything.quotes, wanted, left - spent, costs), history=history)


def _costs_up_to(quotes: Sequence[Quote], left: int, cost_of: Callable[[Quote], int]) -> list[int]:
    """The costs of the first quotes, up to the one with which they are more than `left`."""
    costs, total = list[int](), 0
    for quote in quotes:
        costs.append(cost_of(quote))
        total += costs[-1]
        if total > left:
            break
    return costs


def _newest(history: Sequence[Turn], left: int, costs: Costs) -> tuple[tuple[Turn, ...], int]:
    """The newest whole turns that fit, from a user's on, and what they cost."""
    kept, kept_cost, spent = 0, 0, 0
    for turns, turn in enumerate(reversed(history), start=1):
        spent += costs.of_turn(turn)
        if spent > left:
            break
        if turn.role == "user":
            kept, kept_cost = turns, spent
    return tuple(history[len(history) - kept :]), kept_cost


def _best(quotes: Sequence[Quote], wanted: Sequence[int], left: int, costs: Costs) -> tuple[Quote, ...]:
    """The best quotes that fit, the last of them perhaps shortened."""
    totals = list(accumulate(wanted))
    whole = bisect_right(totals, left)
    kept = tuple(quotes[:whole])
    if whole == len(quotes):
        return kept
    cut = _shortened(quotes[whole], left - (totals[whole - 1] if whole else 0), costs)
    return (*kept, cut) if cut else kept


def _shortened(quote: Quote, left: int, costs: Costs) -> Quote | None:
    """As many whole sentences from its beginning as fit; None where not even one does."""
    cuts = [replace(quote, text=quote.text[: piece.end]) for piece in list(pieces(quote.text, 0, len(quote.text)))[:-1]]
    fitting = bisect_right(cuts, left, key=costs.of_quote)
    return cuts[fitting - 1] if fitting else None
