"""Which rows of a segment a request may see and which of those pass its filter: the wall between tenants, and filters."""

import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from threading import Lock
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.fields import ALL_TENANTS, tenant_key
from tritonrag_backends.index.filter_rows import rows_matching
from tritonrag_backends.index.filters import Filter
from tritonrag_backends.index.lexical import LexicalSegment, LexicalView, count_visible
from tritonrag_backends.index.postings import Postings

Mask = npt.NDArray[np.bool_]
# What a kept entry takes besides the texts of its key, and each of its selections, once it was searched, besides its masks
# (measured with tracemalloc: 230, and 400 to 1,200).
_ENTRY_BYTES: Final = 300
_SELECTION_BYTES: Final = 1000


class Selection:
    """`visible` rows may be seen (not deleted, and the asker's or everybody's), `allowed` ones pass the filter too.

    BOOL [rows] each; None means all rows. Statistics of lexical search come from the visible rows alone, so that nobody's scores
    depend on what lies behind another tenant's wall.
    """

    def __init__(self, lexical: LexicalSegment, *, rows: int, visible: Mask | None, allowed: Mask | None) -> None:
        self.rows: Final = rows
        self.visible: Final = visible
        self.allowed: Final = allowed
        self.count: Final = rows if allowed is None else int(np.count_nonzero(allowed))
        self._lexical = lexical

    @cached_property
    def lexical(self) -> LexicalView:
        """The same rows as lexical search takes them."""
        passages, words = count_visible(self._lexical, self.visible)
        return LexicalView(
            segment=self._lexical, visible=self.visible, allowed=self.allowed, passages=passages, words=words
        )

    @cached_property
    def bitmap(self) -> npt.NDArray[np.uint8] | None:
        """The allowed rows as FAISS takes them: UINT8 [rows / 8, rounded up], little endian; None: all."""
        return None if self.allowed is None else np.packbits(self.allowed, bitorder="little")

    @property
    def bytes(self) -> int:
        """What it holds in memory, or will, once it was searched in every way."""
        masks = {id(mask): mask for mask in (self.visible, self.allowed) if mask is not None}
        bitmap = 0 if self.allowed is None else -(-self.rows // 8)
        return _SELECTION_BYTES + bitmap + sum(mask.nbytes for mask in masks.values())


def select(
    fields: Postings,
    lexical: LexicalSegment,
    *,
    rows: int,
    alive: Mask | None,
    tenant: str | None,
    filter: Filter | None,  # noqa: A002 - the term
) -> Selection:
    """The selection of one asker. `tenant` None sees what belongs to no tenant; a tenant sees that and its own."""
    visible = _behind_the_wall(fields, rows, alive, tenant)
    allowed = visible
    if filter is not None:
        matching = rows_matching(filter, fields, rows)
        allowed = matching if visible is None else matching & visible
    return Selection(lexical, rows=rows, visible=visible, allowed=allowed)


def _behind_the_wall(fields: Postings, rows: int, alive: Mask | None, tenant: str | None) -> Mask | None:
    positions = fields.span(*ALL_TENANTS)
    if not positions:
        return alive
    visible = np.ones(rows, np.bool_)
    visible[fields.rows_between(positions)] = False
    own = None if tenant is None else fields.find(tenant_key(tenant))
    if own is not None:
        visible[fields.rows_of(own)] = True
    return visible if alive is None else visible & alive


class SelectionCache:
    """What was made last for askers, by tenant and filter; bounded by bytes. Safe for many threads."""

    def __init__(self, most_bytes: int = 64 * 2**20) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str | None, str], tuple[tuple[Selection, ...], int]] = OrderedDict()
        self._lock = Lock()

    def get(
        self,
        tenant: str | None,
        filter: Filter | None,  # noqa: A002 - the term
        make: Callable[[], tuple[Selection, ...]],
    ) -> tuple[Selection, ...]:
        """The selections, one a segment, from memory or by `make`."""
        key = (tenant, repr(filter))  # not the values' own equality: to Python 1, 1.0 and true are the same
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        made = make()
        size = _ENTRY_BYTES + sum(map(sys.getsizeof, key)) + sum(selection.bytes for selection in made)
        with self._lock:
            if key not in self._kept and size <= self._most_bytes:
                self._kept[key] = (made, size)
                self._bytes += size
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][1]
        return made
