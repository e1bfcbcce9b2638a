"""Text to token ids, by the `tokenizers` library from the model's own tokenizer.json."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from tritonrag_client.errors import BadRequestError, InternalError

# Each instance has one core: the library's own thread pool would take the others' and warns after a fork. A user's setting wins.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedTexts:
    """Vocabulary ids of each text with its special tokens, at most `max_tokens`; `truncated` texts were longer."""

    ids: list[list[int]]
    truncated: int


class TextTokenizer:
    """Tokenises texts for the encoder (cut at `max_tokens`) and for the chunker (whole, without special tokens)."""

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        """Raises InternalError where the file is no tokenizer."""
        self._cut = _load(path)
        self._cut.no_padding()
        self._cut.enable_truncation(max_tokens)
        self._whole = _load(path)
        self._whole.no_padding()
        self._whole.no_truncation()

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Ids for the encoder. A text without a single token still has its special tokens."""
        encodings = self._cut.encode_batch_fast(_checked(texts))
        return TokenizedTexts(
            ids=[encoding.ids for encoding in encodings],
            truncated=sum(1 for encoding in encodings if encoding.overflowing),
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, without special tokens."""
        encodings = self._whole.encode_batch_fast(_checked(texts), add_special_tokens=False)
        return [len(encoding) for encoding in encodings]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of the whole text stands: (start, end) in characters, without special tokens."""
        offsets: list[tuple[int, int]] = self._whole.encode(_checked([text])[0], add_special_tokens=False).offsets
        return offsets


def _load(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception and has no type of its own
        raise InternalError(f"{path} is not a tokenizer that can be read; export the embedder again") from error


def _checked(texts: Sequence[str]) -> list[str]:
    """The texts as a list; refuses those that are no Unicode text (a lone surrogate has no UTF-8 form)."""
    if isinstance(texts, str):
        raise TypeError("texts is one str; give a sequence of them")
    for number, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRequestError(
                f"text {number} holds a lone surrogate at character {error.start}; send valid Unicode"
            ) from error
    return list(texts)
