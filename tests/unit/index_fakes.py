"""What the index's tests share: vectors, passages, indexes, and an encoder that needs no model."""

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tritonrag_backends.index.format import IndexOptions, Manifest
from tritonrag_client.contract import InputType, Passage
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_export.indexing import BuildOptions, BuildSummary, add_documents, build_index

DIM = 16
WORDS = ("apple", "bridge", "cloud", "desert", "engine", "forest", "garden", "harbour", "island", "jungle")


def unit_vectors(rows: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """FP32 [rows, dim] in clusters, as embeddings are."""
    centres = np.random.default_rng(7).normal(size=(20, dim))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(0, len(centres), rows)] + 0.5 * random.normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def passage(text: str, uri: str = "u", title: str = "T", **metadata: object) -> Passage:
    return Passage(text=text, title=title, uri=uri, start=0, end=len(text), metadata=metadata)


def document(name: str, *texts: str, tenant: str | None = None, **metadata: object) -> DocumentPassages:
    """A document with a passage for each text."""
    passages = tuple(passage(text, uri=name, **metadata) for text in texts)
    return DocumentPassages(id=name, tenant=tenant, passages=passages)


def documents(count: int, lines: int = 3, *, seed: int = 0) -> list[DocumentPassages]:
    """Documents d0.md ... of distinct passages."""
    return [
        document(
            f"d{i}.md",
            *(f"{WORDS[(i + j) % len(WORDS)]} line {j} of document {i} seed {seed}" for j in range(lines)),
            year=2000 + i % 10,
        )
        for i in range(count)
    ]


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
    passage_tokens: int = 254
    calls: list[int] = field(default_factory=list)
    input_types: list[InputType] = field(default_factory=list)

    def encode(self, texts: Sequence[str], *, input_type: InputType = "query") -> FakeEmbedded:
        self.calls.append(len(texts))
        self.input_types.append(input_type)
        vectors = np.stack([self._vector(text) for text in texts]) if texts else np.empty((0, self.dim), np.float32)
        return FakeEmbedded(vectors=vectors, truncated=sum(1 for text in texts if "long" in text))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(re.findall(r"\S+", text)) for text in texts]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", text)]

    def _vector(self, text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        return unit_vectors(1, self.dim, seed)[0]


def build(
    directory: Path, units: Sequence[DocumentPassages], *, given: np.ndarray | None = None, **options: Any
) -> Manifest:
    """Build an index; `given` vectors instead of the fake encoder's."""
    return _run(build_index, directory, units, given, options=BuildOptions(**{"mode": "dense", **options})).manifest


def add(
    directory: Path, units: Sequence[DocumentPassages], *, given: np.ndarray | None = None, **options: Any
) -> Manifest:
    """Add to an index."""
    return _run(add_documents, directory, units, given, **options).manifest


def write_index(directory: Path, vectors: np.ndarray, *, segments: int = 1, **options: Any) -> Manifest:
    """A passage, and a document, for each vector, dealt to consecutive segments."""
    shutil.rmtree(directory / "given", ignore_errors=True)
    units = [document(f"doc{i}.md", f"Straße {i}\n") for i in range(len(vectors))]
    parts = np.array_split(np.arange(len(vectors)), segments)
    manifest = None
    for rows in parts:
        run = build if manifest is None else add
        kept = options if manifest is None else {}
        manifest = run(directory, [units[row] for row in rows], given=vectors[rows], **kept)
    assert manifest is not None
    return manifest


def _run(run: Any, directory: Path, units: Any, vectors: Any, **options: Any) -> BuildSummary:
    encoder = FakeEncoder(dim=DIM if vectors is None else vectors.shape[1])
    if vectors is None:
        return run(units, [encoder], directory, **options)
    rows = dict(zip(texts_of(units), vectors, strict=True))

    class Given(FakeEncoder):
        def _vector(self, text: str) -> np.ndarray:
            found = rows.get(text)
            return super()._vector(text) if found is None else found

    return run(units, [Given(dim=vectors.shape[1])], directory, **options)


def texts_of(units: Sequence[DocumentPassages]) -> list[str]:
    """What is embedded, in order."""
    return [f"{one.title}\n{one.text}" for unit in units for one in unit.passages]


OPTIONS = IndexOptions(kind="auto", recall_target=0.95, mode="dense", analyzer="english/1", fields=None)
