"""Texts padded to one of a few lengths: what engines that are built for given shapes take, and how the texts come out again.

TensorRT builds and tunes an engine for the shapes it is told of, and a batch joins texts of one shape alone, so texts of
11, 13 and 16 tokens all become 16 long. What the padding costs is counted as computed tokens.
"""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritonrag_client.errors import BadRequestError

Int32Array = npt.NDArray[np.int32]

_VARIABLE = "TRITONRAG_ENCODER_BUCKETS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """Lengths in tokens, ascending; the last is the longest text that the model reads."""

    lengths: tuple[int, ...]

    @classmethod
    def parse(cls, text: str, *, max_tokens: int) -> "Buckets":
        """Read "16,32,64". Those beyond the model's `max_tokens` are left out, and `max_tokens` itself is always the last.

        Raises BadRequestError that names the setting where it is no list of ascending lengths.
        """
        try:
            lengths = [int(part) for part in text.split(",")]
        except ValueError:
            lengths = []
        if not lengths or lengths[0] < 1 or any(b <= a for a, b in itertools.pairwise(lengths)):
            raise BadRequestError(f"{_VARIABLE} is {text!r}; give lengths in tokens, ascending, as in 16,32,64")
        return cls(lengths=(*(length for length in lengths if length < max_tokens), max_tokens))

    @property
    def longest(self) -> int:
        """The last length."""
        return self.lengths[-1]

    def fit(self, tokens: int) -> int:
        """The smallest length that holds so many tokens. Raises BadRequestError where none does."""
        place = bisect.bisect_left(self.lengths, tokens)
        if place == len(self.lengths):
            raise BadRequestError(f"a text has {tokens} tokens; this model reads at most {self.longest}")
        return self.lengths[place]


def pad(ids: Sequence[Sequence[int]], length: int) -> tuple[Int32Array, Int32Array]:
    """`input_ids` and `attention_mask`, INT32 [texts, length] each: texts on the left, 0 behind them. None may be longer."""
    input_ids = np.zeros((len(ids), length), np.int32)
    attention_mask = np.zeros_like(input_ids)
    for row, text in enumerate(ids):
        input_ids[row, : len(text)] = text
        attention_mask[row, : len(text)] = 1
    return input_ids, attention_mask


def trim(input_ids: Int32Array, attention_mask: Int32Array) -> list[list[int]]:
    """The texts of a padded batch, INT32 [texts, length] each: what `pad` was given.

    Raises BadRequestError where a mask is not ones and then zeros, or has no ones.
    """
    check_padding(input_ids, attention_mask)
    lengths = attention_mask.sum(axis=1)
    return [row[:length].tolist() for row, length in zip(input_ids, lengths, strict=True)]


def check_padding(input_ids: Int32Array, attention_mask: Int32Array) -> None:
    """Raises BadRequestError where the two don't fit each other or a row is no text with padding on its right."""
    if input_ids.shape != attention_mask.shape or input_ids.ndim != 2:  # noqa: PLR2004 - [texts, length]
        raise BadRequestError(
            f"input_ids has shape {list(input_ids.shape)} and attention_mask {list(attention_mask.shape)};"
            " send both as [texts, tokens]"
        )
    lengths = attention_mask.astype(np.int64).sum(axis=1)
    expected = np.arange(attention_mask.shape[1]) < lengths[:, None]
    wrong = np.flatnonzero((lengths < 1) | (attention_mask != expected).any(axis=1))
    if len(wrong):
        raise BadRequestError(
            f"row {wrong[0]} of attention_mask is not ones for a text's tokens and zeros behind them; send at least one token"
        )
