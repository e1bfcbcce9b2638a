"""What of question, passages and history goes into a prompt, and the messages that come of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from tritonrag_backends.generation.engine import Message
from tritonrag_backends.prompting.fences import fence_of
from tritonrag_backends.prompting.template import PromptTemplate
from tritonrag_client.contract import Passage, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A passage, or its beginning, as the prompt shows it: `text` of source number `source`.

    `order` sorts the passages of a prompt.
    """

    source: int
    order: int
    passage: Passage
    text: str
    fence: str

    @classmethod
    def whole(cls, passage: Passage, *, source: int, order: int, key: bytes) -> "Quote":
        """All of a passage; also what is cut off later is in its fence's hash."""
        return cls(source=source, order=order, passage=passage, text=passage.text, fence=fence_of(passage, key))

    def render(self, template: PromptTemplate, label: int) -> str:
        """The passage between its fences. White space in the title is folded: a title is one line."""
        title = " ".join(self.passage.title.split())
        pattern = template.passage if title else template.untitled_passage
        return pattern.fill({"label": str(label), "title": title, "text": self.text, "fence": self.fence})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What goes into a prompt: quotes in rank order, turns oldest first."""

    quotes: tuple[Quote, ...] = ()
    history: tuple[Turn, ...] = ()

    @property
    def characters(self) -> int:
        """Of quotes and turns together."""
        return sum(len(quote.text) for quote in self.quotes) + sum(len(turn.content) for turn in self.history)

    @property
    def in_order(self) -> list[Quote]:
        """The quotes as the prompt lists them: label 1 first."""
        return sorted(self.quotes, key=lambda quote: (quote.order, quote.source))


def messages_of(template: PromptTemplate, question: str, selection: Selection) -> tuple[Message, ...]:
    """The chat: rules, history, question; passages where the template has them.

    Turns of one role in a row become one message: many chat templates insist that user and assistant take turns.
    """
    blocks = [quote.render(template, label) for label, quote in enumerate(selection.in_order, start=1)]
    values = {"passages": "\n\n".join(blocks) or template.no_passages.fill({}), "question": question}
    chat = [Message(role=turn.role, content=turn.content) for turn in selection.history]
    chat.append(Message(role="user", content=template.question.fill(values)))
    system = [Message(role="system", content=template.system.fill(values))] if template.system else []
    return (*system, *_joined(chat))


def _joined(chat: Sequence[Message]) -> Iterator[Message]:
    for role, messages in groupby(chat, key=lambda message: message.role):
        yield Message(role=role, content="\n\n".join(message.content for message in messages))
