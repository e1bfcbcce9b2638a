"""What is remembered of who may see what is bounded, whatever names and filters are asked with."""

import gc
import tracemalloc
from pathlib import Path

import pytest
from index_fakes import build, document, documents

from tritonrag_backends.index import Index, Query, parse_filter
from tritonrag_backends.index.selection import SelectionCache

NAMES = 2_000


def test_selections_that_hold_no_mask_are_bounded_too() -> None:
    cache = SelectionCache(most_bytes=100_000)
    for number in range(NAMES):
        cache.get(f"tenant {number}", None, tuple)
    assert 0 < len(cache._kept) < 300


def test_the_texts_that_they_are_kept_under_count() -> None:
    cache = SelectionCache(most_bytes=100_000)
    for number in range(100):
        cache.get(f"{number}" + "x" * 30_000, None, tuple)
        cache.get(None, parse_filter('{"name": "' + f"{number}" + "x" * 30_000 + '"}'), tuple)
    assert 0 < len(cache._kept) <= 3


def test_the_least_recently_used_goes_first() -> None:
    cache = SelectionCache(most_bytes=100_000)
    made: list[str] = []

    def ask(name: str) -> None:
        cache.get(name, None, lambda: made.append(name) or ())

    for number in range(NAMES):
        ask("often")
        ask(f"tenant {number}")
    assert made.count("often") == 1


@pytest.mark.parametrize("tenants", [True, False])
@pytest.mark.parametrize("filtered", [True, False])
def test_what_they_are_said_to_hold_is_what_they_hold(tmp_path: Path, tenants: bool, filtered: bool) -> None:
    """Where the masks weigh little."""
    owned = [document("owned.md", "apple of its owner", tenant="owner", year=2000)] if tenants else []
    build(tmp_path, [*documents(20), *owned], mode="hybrid")
    index = Index.open(tmp_path, fingerprint=None)
    wanted = parse_filter('{"year": {"gte": 2001}}') if filtered else None

    def ask(number: int) -> None:
        name = f"tenant number {number}"
        index.search([Query(embedding=None, num_passages=3, text="apple line", tenant=name, filter=wanted)])
        for selection in index._selections.get(name, wanted, tuple):
            _ = selection.bitmap

    ask(-1)
    gc.collect()
    before = index._selections._bytes
    tracemalloc.start()
    for number in range(NAMES):
        ask(number)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index._selections._kept) == NAMES + 1
    assert 0.85 < (index._selections._bytes - before) / held < 2.0
