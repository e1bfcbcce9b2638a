"""The stages of `retrieve` without a server: the same encoder, tokenizer and index, and the passages as they go over the wire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import faiss
import numpy as np
import numpy.typing as npt

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index import Index, Query
from tritonrag_backends.settings import load_settings

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """An encoder and an index. `num_passages` and mode are those of a request that names none."""

    encoder: Encoder
    index: Index
    num_passages: int

    def embed(self, texts: Sequence[str]) -> Float32Array:
        """FP32 [texts, dim]."""
        return self.encoder.encode(texts).vectors

    def search(self, texts: Sequence[str], vectors: Float32Array) -> list[list[bytes]]:
        """The passages' JSON for each text with its vector FP32 [texts, dim]."""
        queries = [
            Query(embedding=vector, text=text, num_passages=self.num_passages)
            for text, vector in zip(texts, vectors, strict=True)
        ]
        return [self.index.passages(hits.passage_ids) for hits in self.index.search(queries)]


def open_stages(variables: Mapping[str, str]) -> Stages:
    """Open what the settings name, once a process; FAISS gets one thread."""
    return _opened(tuple(sorted(variables.items())))


@cache
def _opened(variables: tuple[tuple[str, str], ...]) -> Stages:
    faiss.omp_set_num_threads(1)
    settings = load_settings(dict(variables))
    encoder = Encoder.open(settings.embedder.model, precision=settings.embedder.precision, threads=1)
    index = Index.open(settings.index, fingerprint=encoder.fingerprint, embedder_name=encoder.name)
    return Stages(encoder=encoder, index=index, num_passages=settings.retriever.num_passages)
