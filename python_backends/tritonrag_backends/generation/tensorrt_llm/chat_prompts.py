"""Messages to token ids by the model's own chat template, in which what a passage or a person wrote never becomes a control token.

A template frames messages by control tokens such as <|im_end|>. Text that holds these very characters would be tokenised to
them, so that a passage could end its message and begin one of the system's. Here the spans that the tokenizer takes for
control tokens in a message's content are kept out while the template is rendered and tokenised, and are then spelled out
in ordinary tokens. Content without any is tokenised as transformers does it.
"""

import re
import secrets
from collections.abc import Sequence
from typing import Final

from jinja2 import TemplateError

from tritonrag_backends.generation.engine import Message
from tritonrag_backends.generation.tensorrt_llm.foreign import Foreign
from tritonrag_client.errors import BadRequestError

# Some models have turn markers among their ordinary added tokens; runs of spaces and the like are added tokens, too.
_LIKE_A_MARKER: Final = re.compile(r"<.+>|\[.+\]|<\|.*", re.DOTALL)
_PROBE: Final = (Message(role="system", content="x"), Message(role="user", content="x"))


class ChatPrompts:
    """Tokenises prompts. `tokenizer` is the library's, a wrapper of a fast one of transformers'.

    Raises BadRequestError for a tokenizer that is not fast or has no chat template.
    """

    def __init__(self, tokenizer: Foreign) -> None:
        inner = getattr(tokenizer, "tokenizer", tokenizer)
        if not getattr(inner, "is_fast", False):
            raise BadRequestError(
                "the model's tokenizer is not a fast one (tokenizer.json); convert it with transformers"
            )
        if not getattr(inner, "chat_template", None):
            raise BadRequestError(
                "the model has no chat template; choose an instruction-tuned one, or add chat_template.jinja"
            )
        self._tokenizer = inner
        self._control = frozenset(
            number
            for number, token in inner.added_tokens_decoder.items()
            if token.special or _LIKE_A_MARKER.fullmatch(token.content)
        )
        self._takes_system = self._renders(_PROBE)

    def token_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt, up to where the answer begins. Raises BadRequestError where the template refuses the messages."""
        mark = f"\ue000{secrets.token_hex(8)}\ue000"  # unguessable, so that content can't hold it
        spans: list[str] = []
        shielded = [
            Message(role=message.role, content=self._shield(message.content, mark, spans)) for message in messages
        ]
        try:
            text = self._render(shielded if self._takes_system else _without_system(shielded))
        except TemplateError as error:
            raise BadRequestError(f"the model's chat template refuses these messages: {error}") from error
        return self._encode_around(text, mark, spans)

    def _shield(self, content: str, mark: str, spans: list[str]) -> str:
        """The content with a numbered mark for each span that would become a control token; the spans are appended."""
        encoded = self._tokenizer(content, add_special_tokens=False, return_offsets_mapping=True)
        if self._control.isdisjoint(encoded["input_ids"]):
            return content
        pieces, end = [], 0
        for number, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if number in self._control:
                pieces += [content[end:first], f"{mark}{len(spans)}{mark}"]
                spans.append(content[first:last])
                end = last
        return "".join([*pieces, content[end:]])

    def _encode_around(self, text: str, mark: str, spans: Sequence[str]) -> list[int]:
        parts = re.split(f"{mark}(\\d+){mark}", text) if spans else [text]
        ids: list[int] = []
        for place, part in enumerate(parts):
            ids += self._spell(spans[int(part)]) if place % 2 else self._encode(part)
        return ids

    def _spell(self, span: str) -> list[int]:
        """In ordinary tokens. A single character that is a control token by itself is left out."""
        ids = self._encode(span)
        if self._control.isdisjoint(ids):
            return ids
        return self._spell(span[:1]) + self._spell(span[1:]) if len(span) > 1 else []

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False)) if text else []

    def _render(self, messages: Sequence[Message]) -> str:
        plain = [{"role": message.role, "content": message.content} for message in messages]
        return str(self._tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True))

    def _renders(self, messages: Sequence[Message]) -> bool:
        try:
            self._render(messages)
        except TemplateError:
            return False
        return True


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """For templates that know no system role: its text goes before the first message of the user."""
    system = [message.content for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    for place, message in enumerate(others):
        if message.role == "user":
            others[place] = Message(role="user", content="\n\n".join([*system, message.content]))
            break
    return others
