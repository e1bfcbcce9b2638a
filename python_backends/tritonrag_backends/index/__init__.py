"""The index: its format on disk, reading and searching it, writing and publishing it. Knows nothing of Triton."""

from tritonrag_backends.index.filters import Filter, parse_filter
from tritonrag_backends.index.search import Hits, Index, Query

__all__ = ["Filter", "Hits", "Index", "Query", "parse_filter"]
