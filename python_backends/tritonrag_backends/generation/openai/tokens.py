"""Counting a prompt's tokens without the server that will read it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from tritonrag_backends.generation.engine import Message
from tritonrag_client.errors import BadRequestError, NotFoundError

# A chat template's marks around one message: ChatML takes 5, Llama 3 takes 6 with the role.
TEMPLATE_TOKENS = 8

# Measured on SmolLM2's vocabulary of 49,152 (made for English; larger ones take fewer tokens), bytes a token: English 4.1, code
# 3.8, German 2.7, Russian 2.4, Arabic 2.1, Chinese 1.8, Japanese 1.7; digits one each, as in many vocabularies. The numbers below
# estimate English a third too high and Chinese a fifth. Too low is Base64 and the like (1.2), which prose holds little of.
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \t\r\n"
_BEYOND_ASCII = bytes(range(128, 256))
_LETTERS_PER_TOKEN = 3.5
_BEYOND_ASCII_BYTES_PER_TOKEN = 1.5


def estimate_tokens(text: str) -> int:
    """About how many tokens a language model's vocabulary makes of a text; meant to be too high rather than too low."""
    data = text.encode(errors="replace")
    others = data.translate(None, _LETTERS)
    digits_and_marks = len(others.translate(None, _BEYOND_ASCII))
    letters, beyond_ascii = len(data) - len(others), len(others) - digits_and_marks
    return math.ceil(letters / _LETTERS_PER_TOKEN + beyond_ascii / _BEYOND_ASCII_BYTES_PER_TOKEN + digits_and_marks)


def token_counter(tokenizer: Path | None) -> Callable[[Sequence[Message]], int]:
    """What counts the tokens of messages as a prompt: by the model's tokenizer.json, or else by `estimate_tokens`.

    Raises NotFoundError or BadRequestError for a file that can't be read.
    """
    count = estimate_tokens if tokenizer is None else _exact(tokenizer)

    def count_messages(messages: Sequence[Message]) -> int:
        return sum(count(message.content) + TEMPLATE_TOKENS for message in messages)

    return count_messages


def _exact(path: Path) -> Callable[[str], int]:
    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
    except OSError as error:
        raise NotFoundError(
            f"TRITONRAG_OPENAI_TOKENIZER is {str(path)!r}, which can't be read ({error.strerror});"
            " give the model's tokenizer.json, or leave it out"
        ) from error
    except Exception as error:  # the library raises Exception itself
        raise BadRequestError(
            f"TRITONRAG_OPENAI_TOKENIZER is {str(path)!r}, which is no tokenizer.json ({error});"
            " give the one in the model's folder, or leave it out"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
