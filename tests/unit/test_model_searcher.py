"""A model's searches take as many FAISS threads as it was given, in whichever of its threads they run."""

import importlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import faiss
import numpy as np
import pytest
from tests.server.toy import make_embedder, make_index

from tritonrag_backends.index import Index, Query
from tritonrag_backends.index.result_cache import Asked
from tritonrag_backends.settings import EmbedderSettings, RetrieverSettings, Settings

ARGS = {"model_instance_name": "retriever_0", "model_instance_kind": "CPU", "model_instance_device_id": "0"}
THREADS = 7


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of `models/` with Triton's own, which is there inside of Triton alone, made up."""
    before = set(sys.modules)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", MagicMock())
    yield lambda name: importlib.import_module(f"tritonrag_backends.models.{name}")
    for name in set(sys.modules) - before:
        if name.startswith("tritonrag_backends.models."):
            del sys.modules[name]


@pytest.fixture
def searcher(models: Any, tmp_path: Path) -> Iterator[Any]:
    settings = Settings(
        index=make_index(tmp_path / "index"),
        embedder=EmbedderSettings(model=make_embedder(tmp_path / "embedder")),
        retriever=RetrieverSettings(cache_bytes=0),
    )
    made = models("searcher").Searcher("retriever", ARGS, settings, threads=THREADS)
    yield made
    made.close()


def test_the_number_of_threads_holds_in_every_thread_while_it_searches(
    models: Any, searcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    search = Index.search

    def noting(index: Index, queries: Any) -> Any:
        seen.append(faiss.omp_get_max_threads())
        return search(index, queries)

    monkeypatch.setattr(Index, "search", noting)
    query = Query(embedding=np.array([1, 0], np.float32), num_passages=1, mode="dense")
    asked = [models("searches").Search(asked=[Asked(query=query)], outputs=frozenset())]
    with ThreadPoolExecutor(1) as other:
        other.submit(searcher.search, searcher.current, asked).result()
    searcher.search(searcher.current, asked)
    assert seen == [THREADS, THREADS]
