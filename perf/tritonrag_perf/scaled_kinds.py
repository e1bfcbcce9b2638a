"""An index of each kind over the same passages, whose files all of them share."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from tritonrag_backends.choices import Kind, VectorType
from tritonrag_backends.index import Index
from tritonrag_backends.index.change import Change, changing, has_versions
from tritonrag_backends.index.completing import complete_segment
from tritonrag_backends.index.disk import disk_errors
from tritonrag_backends.index.format import SEGMENTS, Counts, Manifest, SegmentRecord, VectorRecord, segment_files
from tritonrag_backends.index.store import open_queries, open_space, remove
from tritonrag_backends.index.vectors import Float32Array, VectorSpace
from tritonrag_backends.index.writer import RAW_FILE, SegmentWriter, store_vectors
from tritonrag_client.contract import Mode
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.replicas import Replicas

Progress = Callable[[str, int], None]  # what is being done, rows done

_CAUSE: Final = "scaled index"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltKind:
    """An index of one kind. `build_s` is what the kind costs: building `ann.faiss`, tuning, checking and syncing the files."""

    directory: Path
    manifest: Manifest
    build_s: float

    @property
    def segment(self) -> SegmentRecord:
        """Its only segment."""
        (record,) = self.manifest.segments
        return record


def build_kinds(
    source: Path,
    output: Path,
    *,
    rows: int,
    kinds: Sequence[Kind],
    vectors: VectorType = "fp32",
    mode: Mode | None = None,
    recall: float | None = None,
    seed: int = 0,
    progress: Progress = lambda _what, _rows: None,
) -> Iterator[BuiltKind]:
    """Make `output/<kind>` for each kind and give it back once it is there: `rows` passages, those of `source` and then replicas.

    All are tuned to the held-out queries of `source`. `mode` None: as `source` is searched; `recall` to reach at 10, None: as it
    was wanted there. Memory: that of building the kind; passages pass in blocks. Raises BadRequestError where a folder holds an
    index already or `source` can't be scaled (Replicas), NotFoundError where there is no index at `source`, InternalError where it
    is damaged.
    """
    _require_free(output, kinds)
    index = Index.open(source, fingerprint=None)
    replicas = Replicas(index, seed=seed)
    space = VectorSpace(record=VectorRecord(type=vectors, dims=index.dim, reduction="none"))
    made = _Making(
        base=_template(index.manifest, space.record, mode, recall),
        space=space,
        queries=open_queries(source, index.manifest),
        progress=progress,
    )
    first = made.write(output, kinds[0], replicas, rows)
    yield first
    for kind in kinds[1:]:
        yield made.link(output, kind, first.directory / SEGMENTS / first.segment.id, first.segment)


def build_siblings(
    like: Path,
    output: Path,
    *,
    kinds: Sequence[Kind],
    mode: Mode | None = None,
    recall: float | None = None,
    progress: Progress = lambda _what, _rows: None,
) -> Iterator[BuiltKind]:
    """Make `output/<kind>` of all passages of the index `like`, which has one segment of which nothing is deleted.

    Raises as `build_kinds`.
    """
    _require_free(output, kinds)
    manifest = Index.open(like, fingerprint=None).manifest  # checked in full: damage must not get a new digest
    if len(manifest.segments) != 1 or manifest.segments[0].tombstones:
        raise BadRequestError(
            f"the index {like} has {len(manifest.segments)} segments, or deleted passages; make one of them first: "
            "tritonrag index merge --all"
        )
    made = _Making(
        base=_template(manifest, manifest.vectors, mode, recall),
        space=open_space(like, manifest),
        queries=open_queries(like, manifest),
        progress=progress,
    )
    for kind in kinds:
        yield made.link(output, kind, like / SEGMENTS / manifest.segments[0].id, manifest.segments[0])


class _Described(Protocol):
    """What a segment's record says of its passages."""

    @property
    def rows(self) -> int: ...
    @property
    def fields(self) -> tuple[str, ...]: ...
    @property
    def unfilterable(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Making:
    """What all kinds have in common. `base` has no segments."""

    base: Manifest
    space: VectorSpace
    queries: Float32Array | None
    progress: Progress

    def write(self, output: Path, kind: Kind, replicas: Replicas, rows: int) -> BuiltKind:
        """The first kind, its files written from passages and vectors."""
        base = self._of(kind)
        with changing(output / kind) as change, disk_errors(output / kind):
            with SegmentWriter(change.stage(), dim=base.embedding.dim, options=base.options) as writer:
                for block in replicas.blocks(rows):
                    writer.add(block.passages, block.vectors)
                    self.progress("writing passages", writer.rows)
                self.progress("writing the postings", writer.rows)
                writer.finish()
            store_vectors(writer.folder, self.space)
            remove(writer.folder / RAW_FILE)
            return self._publish(change, base, writer.folder, writer)

    def link(self, output: Path, kind: Kind, files: Path, like: SegmentRecord) -> BuiltKind:
        """Another kind over the files of a segment."""
        base = self._of(kind)
        with changing(output / kind) as change, disk_errors(output / kind):
            folder = change.stage()
            folder.mkdir()
            for name in segment_files("flat", base.vectors.type):  # those that every kind has
                _link(files / name, folder / name)
            return self._publish(change, base, folder, like)

    def _of(self, kind: Kind) -> Manifest:
        return replace(self.base, options=replace(self.base.options, kind=kind))

    def _publish(self, change: Change, base: Manifest, folder: Path, of: "_Described") -> BuiltKind:
        start = time.perf_counter()
        record = complete_segment(
            folder,
            rows=of.rows,
            options=base.options,
            space=self.space,
            queries=self.queries,
            fields=of.fields,
            unfilterable=of.unfilterable,
            disk=change.disk,
            step=self.progress,
        )
        build_s = time.perf_counter() - start
        change.add(folder, record)
        if self.space.projection is not None:
            change.share("projection", self.space.projection)
        queries = None if self.queries is None else change.share("queries", self.queries)
        manifest = change.commit(_CAUSE, replace(base, queries=queries), ())
        return BuiltKind(directory=change.directory, manifest=manifest, build_s=build_s)


def _require_free(output: Path, kinds: Sequence[Kind]) -> None:
    there = [str(output / kind) for kind in kinds if has_versions(output / kind)]
    if there:
        raise BadRequestError(f"there is an index already in {', '.join(there)}; remove it, or give another --output")


def _template(manifest: Manifest, vectors: VectorRecord, mode: Mode | None, recall: float | None) -> Manifest:
    """A version without segments; `commit` gives it number, time, segments and counts."""
    options = manifest.options
    return replace(
        manifest,
        vectors=vectors,
        options=replace(options, mode=mode or options.mode, recall_target=recall or options.recall_target),
        segments=(),
        counts=Counts(documents=0, passages=0, skipped=0),
        queries=None,
    )


def _link(source: Path, target: Path) -> None:
    """The same file under another name: an index's files are never changed, so that several may share one."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
