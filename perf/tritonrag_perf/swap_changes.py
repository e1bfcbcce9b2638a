"""An index that changes all the time: built anew, added to, deleted from, rolled back, merged, cleaned up, in a drawn order."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from tritonrag_backends.choices import KindChoice, VectorType
from tritonrag_backends.index.analysis import Analyzer
from tritonrag_backends.index.change import Change, changing, open_live
from tritonrag_backends.index.completing import complete_segment
from tritonrag_backends.index.format import Counts, EmbeddingRecord, IndexOptions, Manifest, VectorRecord
from tritonrag_backends.index.manifest_json import manifest_version
from tritonrag_backends.index.merging import merge
from tritonrag_backends.index.operations import collect_garbage, delete_documents, rollback
from tritonrag_backends.index.store import manifest_names, open_space, read_current
from tritonrag_backends.index.vectors import VectorSpace
from tritonrag_backends.index.writer import SegmentWriter, store_vectors
from tritonrag_client.contract import Mode
from tritonrag_perf.swap_corpus import MadeDocument, make_document

ChangeKind = Literal["build", "add", "delete", "rollback", "merge", "gc"]
CHANGE_KINDS: Final[tuple[ChangeKind, ...]] = ("build", "add", "delete", "rollback", "merge", "gc")
_WEIGHTS: Final = (8, 36, 20, 20, 10, 6)
_KEPT_VERSIONS: Final = 6
_STORED: Final[tuple[tuple[KindChoice, VectorType, Mode], ...]] = (
    ("flat", "fp32", "hybrid"),
    ("hnsw", "fp32", "dense"),
    ("flat", "int8", "lexical"),
    ("hnsw", "fp16", "hybrid"),
    ("ivf_rabitq", "fp32", "hybrid"),
    ("sq8", "fp32", "dense"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What was done, and the version that is live after it."""

    kind: ChangeKind
    live: Manifest


class ChangingIndex:
    """Changes the index at `directory`, one change after the other, in an order that `seed` draws."""

    def __init__(self, directory: Path, *, embedder: EmbeddingRecord, documents: int = 400, seed: int = 0) -> None:
        self.directory: Final = directory
        self.embedder: Final = embedder
        self._documents = documents
        self._draw = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._numbers = self._revision = 0
        self._changes: dict[ChangeKind, Callable[[], None]] = {
            "build": self.build,
            "add": self.add,
            "delete": self.delete,
            "rollback": self._rollback,
            "merge": self._merge,
            "gc": self._collect_garbage,
        }

    def change(self) -> Changed:
        """Make the next change."""
        (kind,) = self._draw.choices(CHANGE_KINDS, _WEIGHTS)
        self._changes[kind]()
        return Changed(kind=kind, live=read_current(self.directory))

    def build(self) -> None:
        """Build all of it anew, each time searched and stored in another way."""
        kind, vectors, mode = self._draw.choice(_STORED)
        options = IndexOptions(kind=kind, recall_target=0.95, mode=mode, analyzer=Analyzer("english").name, fields=None)
        record = VectorRecord(type=vectors, dims=self.embedder.dim, reduction="none")
        base = Manifest(
            index_version=1,
            last_segment=0,
            created_at="",
            cause="swap test",
            embedding=self.embedder,
            vectors=record,
            options=options,
            segments=(),
            counts=Counts(documents=0, passages=0, skipped=0),
        )
        with changing(self.directory) as change:
            _write_segment(change, self._new(self._documents), base, VectorSpace(record=record, projection=None))
            change.commit("swap test", base, ())

    def _new(self, count: int) -> list[MadeDocument]:
        self._revision += 1
        numbers = range(self._numbers, self._numbers + count)
        self._numbers += count
        return [make_document(number, revision=self._revision, dim=self.embedder.dim) for number in numbers]

    def add(self) -> None:
        """Add documents, some of which replace what is there."""
        with changing(self.directory) as change:
            live = open_live(self.directory)
            there = [int(name.split("/")[1].removesuffix(".txt")) for name in live.document_ids()]
            self._revision += 1
            replaced = [
                make_document(number, revision=self._revision, dim=self.embedder.dim)
                for number in self._draw.sample(there, min(8, len(there)))
            ]
            for document in replaced:
                change.delete(live.segments, document.id, document.tenant)
            space = open_space(self.directory, live.manifest)
            _write_segment(change, [*replaced, *self._new(24)], live.manifest, space)
            change.commit("swap test", live.manifest, live.manifest.segments)

    def delete(self) -> None:
        """Delete some documents of one tenant, or of those that belong to none."""
        keys = open_live(self.directory).document_keys
        tenant = self._draw.choice(sorted({owner or "" for owner, _ in keys})) or None
        documents = [document for owner, document in keys if owner == tenant]
        chosen = self._draw.sample(documents, min(16, max(1, len(documents) // 4)))
        delete_documents(self.directory, chosen, tenant=tenant)

    def _rollback(self) -> None:
        live = read_current(self.directory).index_version
        versions = [manifest_version(name) for name in manifest_names(self.directory)]
        others = [version for version in versions if version is not None and version != live]
        if others:
            rollback(self.directory, self._draw.choice(others))

    def _merge(self) -> None:
        merge(self.directory, everything=self._draw.random() < 0.5)  # noqa: PLR2004 - a coin

    def _collect_garbage(self) -> None:
        collect_garbage(self.directory, keep=_KEPT_VERSIONS)


def _write_segment(change: Change, documents: Sequence[MadeDocument], base: Manifest, space: VectorSpace) -> None:
    with SegmentWriter(change.stage(), dim=base.embedding.dim, options=base.options) as writer:
        passages = [passage for document in documents for passage in document.passages]
        writer.add(passages, np.concatenate([document.vectors for document in documents]))
        writer.finish()
        store_vectors(writer.folder, space)
        record = complete_segment(
            writer.folder,
            rows=writer.rows,
            options=base.options,
            space=space,
            queries=None,
            fields=writer.fields,
            unfilterable=writer.unfilterable,
            disk=change.disk,
            step=lambda _what, _rows: None,
        )
    change.add(writer.folder, record)
