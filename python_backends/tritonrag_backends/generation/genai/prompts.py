"""The tokenizer and the chat template of a model's folder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from tritonrag_backends.generation.chat_prompts import ChatPrompts, Encoded, is_control
from tritonrag_backends.generation.chat_template import ChatTemplate, render_around_system
from tritonrag_backends.generation.genai.folder import TOKENIZER_FILE
from tritonrag_client.errors import InternalError

_CHANGED_LENGTH: Final = ("truncation", "padding")  # what a tokenizer.json may ask for and a prompt must not suffer


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer. Raises InternalError where the file is none."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception as error:  # the library raises Exception itself
        raise InternalError(
            f"{folder / TOKENIZER_FILE} can't be read as a tokenizer: {error}; export the model again"
        ) from error
    for name in _CHANGED_LENGTH:
        getattr(tokenizer, f"no_{name}")()
    return tokenizer


def chat_prompts(folder: Path, tokenizer: Tokenizer) -> ChatPrompts:
    """How the model wants its prompts. Raises InternalError where its chat template can't be read."""
    added = tokenizer.get_added_tokens_decoder()
    control = frozenset(number for number, token in added.items() if is_control(token.content, special=token.special))
    return ChatPrompts(
        render=partial(render_around_system, ChatTemplate.read(folder).render),
        encode=partial(_encode, tokenizer),
        control=control,
    )


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids, control tokens left out."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


def _encode(tokenizer: Tokenizer, text: str) -> Encoded:
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return Encoded(encoding.ids, encoding.offsets)
