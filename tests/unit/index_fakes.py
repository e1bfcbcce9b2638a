"""What the index's tests share: vectors, passages, and an encoder and a chunker that need no model."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritonrag_backends.index.format import Counts, EmbeddingRecord, Manifest
from tritonrag_backends.index.lock import write_lock
from tritonrag_backends.index.store import next_segment_number
from tritonrag_backends.index.writer import SegmentWriter, publish
from tritonrag_client.contract import Passage
from tritonrag_export.documents.model import Document

DIM = 16


def unit_vectors(rows: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """FP32 [rows, dim] in clusters, as embeddings are."""
    centres = np.random.default_rng(7).normal(size=(20, dim))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(0, len(centres), rows)] + 0.5 * random.normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def passages(rows: int) -> list[Passage]:
    return [Passage(text=f"Straße {i}\n", title="T", uri=f"doc{i}.md", start=0, end=9) for i in range(rows)]


def embedding_record(dim: int = DIM, fingerprint: str = "f1") -> EmbeddingRecord:
    return EmbeddingRecord(name="fake", fingerprint=fingerprint, dim=dim, precision="fp32", template="{title}\n{text}")


def write_index(directory: Path, vectors: np.ndarray, *, kind: str = "flat", segments: int = 1) -> Manifest:
    """Publish the vectors, dealt to consecutive segments, with passage i for vector i."""
    directory.mkdir(parents=True, exist_ok=True)
    every = passages(len(vectors))
    records = []
    with write_lock(directory):
        for rows in np.array_split(np.arange(len(vectors)), segments):
            number = next_segment_number(directory)
            with SegmentWriter(directory, number=number, dim=vectors.shape[1], kind=kind) as writer:
                writer.add([every[row] for row in rows], vectors[rows])
                records.append(writer.finish())
        counts = Counts(documents=1, passages=len(vectors), skipped=0)
        return publish(directory, embedding=embedding_record(vectors.shape[1]), segments=records, counts=counts)


@dataclass(frozen=True)
class FakeEmbedded:
    vectors: np.ndarray
    truncated: int = 0


@dataclass
class FakeEncoder:
    """A text's vector is a function of its bytes alone."""

    name: str = "fake"
    fingerprint: str = "f1"
    dim: int = DIM
    precision: str = "fp32"
    max_tokens: int = 256
    largest_call: int = 0

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(self.token_offsets(text)) for text in texts]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]

    def encode(self, texts: Sequence[str]) -> FakeEmbedded:
        self.largest_call = max(self.largest_call, len(texts))
        seeds = (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts)
        return FakeEmbedded(np.concatenate([unit_vectors(1, self.dim, seed) for seed in seeds]), truncated=1)


def lines(document: Document) -> Iterable[Passage]:
    """A chunker: a passage for each line."""
    at = 0
    for line in document.text.splitlines(keepends=True):
        text = line.rstrip("\n")
        if text:
            yield Passage(text=text, title=document.title, uri=document.uri, start=at, end=at + len(text))
        at += len(line)


def documents(count: int, lines_each: int = 3) -> Iterable[Document]:
    for i in range(count):
        yield Document(uri=f"d{i}.md", title=f"D{i}", text="".join(f"line {j} of {i}\n" for j in range(lines_each)))
