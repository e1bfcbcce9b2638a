"""Text to token ids, by the `tokenizers` library from the model's own tokenizer.json, and the prefixes of queries and passages."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from tokenizers import Tokenizer

from tritonrag_backends.embedding.format import TOKENIZER_FILE, EmbedderManifest
from tritonrag_client.contract import INPUT_TYPE, InputType
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

    @property
    def special_tokens(self) -> int:
        """Tokens that the encoder adds to each text."""
        added: int = self._cut.num_special_tokens_to_add(is_pair=False)
        return added

    def tokenize(self, texts: Sequence[str], *, prefixes: Sequence[str] | None = None) -> TokenizedTexts:
        """Ids for the encoder, `prefixes[i]` before text i. A text without a single token still has its special tokens."""
        checked = _checked(texts)
        if prefixes is not None:
            checked = [prefix + text for prefix, text in zip(prefixes, checked, strict=True)]
        encodings = self._cut.encode_batch_fast(checked)
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


class PrefixingTokenizer:
    """The tokenizer of an embedder folder: texts to ids, each with the prefix that its model wants before a query or a passage."""

    def __init__(self, manifest: EmbedderManifest, tokenizer: TextTokenizer) -> None:
        """Use `PrefixingTokenizer.open`."""
        self._manifest = manifest
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, directory: Path, manifest: EmbedderManifest) -> "PrefixingTokenizer":
        """Open the folder's tokenizer; `manifest` is the folder's own, verified as far as the caller wants it.

        Raises InternalError where the file is no tokenizer.
        """
        return cls(manifest, TextTokenizer(directory / TOKENIZER_FILE, max_tokens=manifest.max_tokens))

    @property
    def whole(self) -> TextTokenizer:
        """The tokenizer without prefixes."""
        return self._tokenizer

    @property
    def passage_tokens(self) -> int:
        """Tokens that a passage may have before it is cut: the model's limit without special tokens and prefix."""
        taken = self._tokenizer.count_tokens([self._manifest.passage_prefix])[0] + self._tokenizer.special_tokens
        return self._manifest.max_tokens - taken

    def tokenize(
        self, texts: Sequence[str], *, input_type: InputType | Sequence[InputType] = "query"
    ) -> TokenizedTexts:
        """Ids for the encoder; `input_type` is one for all texts or one for each.

        Raises BadRequestError where a text is not valid Unicode or a type is none of ours.
        """
        if isinstance(input_type, str):
            input_type = [input_type] * len(texts)
        prefixes = [self._manifest.prefix(parse_input_type(one)) for one in input_type]
        return self._tokenizer.tokenize(texts, prefixes=prefixes)


def parse_input_type(text: str) -> InputType:
    """`text` as an input type; "" is "query". Raises BadRequestError that names it."""
    text = text or "query"
    if text not in get_args(InputType):
        raise BadRequestError(f'{INPUT_TYPE} is {text[:40]!r}; send "query" or "passage", or leave it out for a query')
    return cast("InputType", text)


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
