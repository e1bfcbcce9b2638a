"""A model of a KV cache that uses prefixes again, as vLLM and TensorRT-LLM do: in blocks, each of which stands for all before it.

A block is found again where the whole prompt up to its end is the same. A block that is not full is not kept, and the last token
of a prompt is always computed, because the first token of the answer comes from it. Least recently used blocks leave first, of
one prompt the last ones first. Requests come one after the other: two that run at the same time share as if the first were done.
Tokens of answers are not kept.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.trace.requests import Key, Part

_Slice = tuple[Key, int, int]  # of a part the tokens from one up to another


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockNames:
    """Names the blocks of prompts, each of `size` tokens: same number, same tokens in it and before it."""

    size: int
    _known: dict[tuple[int, tuple[_Slice, ...]], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise BadRequestError(f"a block has {self.size} tokens; give 1 or more")

    def of(self, prompt: Sequence[Part]) -> tuple[int, ...]:
        """The full blocks of a prompt that a next one could use: never that with its last token."""
        names, before = [], 0
        usable = (sum(part.tokens for part in prompt) - 1) // self.size
        for block in islice(_blocks(prompt, self.size), max(usable, 0)):
            before = self._known.setdefault((before, block), len(self._known) + 1)
            names.append(before)
        return tuple(names)


def _blocks(prompt: Sequence[Part], size: int) -> Iterator[tuple[_Slice, ...]]:
    slices: list[_Slice] = []
    room = size
    for part in prompt:
        at = 0
        while at < part.tokens:
            end = min(at + room, part.tokens)
            slices.append((part.key, at, end))
            room -= end - at
            at = end
            if room == 0:
                yield tuple(slices)
                slices, room = [], size


class PrefixCache:
    """Blocks by their names. `capacity` None: it never forgets."""

    def __init__(self, capacity: int | None = None) -> None:
        if capacity is not None and capacity < 1:
            raise BadRequestError(f"the cache holds {capacity} blocks; give room for 1 or more")
        self._capacity = capacity
        self._held: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def use(self, blocks: Sequence[int]) -> int:
        """How many of a prompt's first blocks are there; all of them are afterwards, as far as there is room."""
        found = next((i for i, block in enumerate(blocks) if block not in self._held), len(blocks))
        for block in reversed(blocks):  # the first one last, so that it stays the longest
            self._held[block] = None
            self._held.move_to_end(block)
        while self._capacity is not None and len(self._held) > self._capacity:
            self._held.popitem(last=False)
        return found
