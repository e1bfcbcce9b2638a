"""Prompts by the tokenizer and chat template that the library loaded, a fast tokenizer of transformers' or a wrapper of one."""

from collections.abc import Sequence
from functools import partial

from tritonrag_backends.generation.chat_prompts import ChatPrompts, Encoded, is_control
from tritonrag_backends.generation.chat_template import render_around_system
from tritonrag_backends.generation.engine import Message
from tritonrag_backends.generation.tensorrt_llm.foreign import Foreign
from tritonrag_client.errors import BadRequestError


def chat_prompts(tokenizer: Foreign) -> ChatPrompts:
    """How the model wants its prompts. Raises BadRequestError for a tokenizer that is not fast or has no chat template."""
    inner: Foreign = getattr(tokenizer, "tokenizer", tokenizer)
    if not getattr(inner, "is_fast", False):
        raise BadRequestError("the model's tokenizer is not a fast one (tokenizer.json); convert it with transformers")
    if not getattr(inner, "chat_template", None):
        raise BadRequestError(
            "the model has no chat template; choose an instruction-tuned one, or add chat_template.jinja"
        )
    added = inner.added_tokens_decoder.items()
    return ChatPrompts(
        render=partial(render_around_system, partial(_render, inner)),
        encode=partial(_encode, inner),
        control=frozenset(number for number, token in added if is_control(token.content, special=token.special)),
    )


def _render(tokenizer: Foreign, messages: Sequence[Message]) -> str:
    plain = [{"role": message.role, "content": message.content} for message in messages]
    return str(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True))


def _encode(tokenizer: Foreign, text: str) -> Encoded:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return Encoded(encoded["input_ids"], encoded["offset_mapping"])
