"""Messages to token ids, in which what a passage or a person wrote never becomes a control token.

A template frames messages by control tokens such as <|im_end|>. Text that holds these very characters would be tokenised to
them, so that a passage could end its message and begin one of the system's. Here the spans of a message's content that the
tokenizer takes for control tokens are kept out while the template is rendered and tokenised, and are then spelled out in ordinary
tokens. Content without any is tokenised as transformers does it.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from tritonrag_backends.generation.engine import Message

# Some models have turn markers among their ordinary added tokens; runs of spaces and the like are added tokens, too.
_LIKE_A_MARKER: Final = re.compile(r"<.+>|\[.+\]|<\|.*", re.DOTALL)


class Encoded(NamedTuple):
    """Token ids of a text, and for each the characters [start, end) that it stands for."""

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]


def is_control(content: str, *, special: bool) -> bool:
    """Whether an added token of a tokenizer frames messages, rather than being a word that was added."""
    return special or _LIKE_A_MARKER.fullmatch(content) is not None


class ChatPrompts:
    """Tokenises prompts.

    `render` gives a prompt's text by the model's chat template, `encode` a text's tokens without any that a tokenizer adds at the
    ends; `control` are the ids of the tokens that frame messages.
    """

    def __init__(
        self, *, render: Callable[[Sequence[Message]], str], encode: Callable[[str], Encoded], control: frozenset[int]
    ) -> None:
        self._render, self._encode, self._control = render, encode, control

    def token_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt, up to where the answer begins. Raises what `render` raises."""
        mark = f"\ue000{secrets.token_hex(8)}\ue000"  # unguessable, so that content can't hold it
        spans: list[str] = []
        shielded = [Message(role=one.role, content=self._shield(one.content, mark, spans)) for one in messages]
        text = self._render(shielded)
        parts = re.split(f"{mark}(\\d+){mark}", text) if spans else [text]
        ids: list[int] = []
        for place, part in enumerate(parts):
            ids += self._spell(spans[int(part)]) if place % 2 else self._ids(part)
        return ids

    def _shield(self, content: str, mark: str, spans: list[str]) -> str:
        """The content with a numbered mark for each span that would become a control token; the spans are appended."""
        encoded = self._encode(content)
        if self._control.isdisjoint(encoded.ids):
            return content
        pieces, end = [], 0
        for number, (first, last) in zip(encoded.ids, encoded.offsets, strict=True):
            if number in self._control:
                pieces += [content[end:first], f"{mark}{len(spans)}{mark}"]
                spans.append(content[first:last])
                end = last
        return "".join([*pieces, content[end:]])

    def _spell(self, span: str) -> Iterator[int]:
        """In ordinary tokens, halved until none is a control token; a single character that is one is left out."""
        ids = self._ids(span)
        if self._control.isdisjoint(ids):
            yield from ids
        elif len(span) > 1:
            yield from self._spell(span[: len(span) // 2])
            yield from self._spell(span[len(span) // 2 :])

    def _ids(self, text: str) -> Sequence[int]:
        return self._encode(text).ids if text else []
