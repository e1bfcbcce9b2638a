"""One change of an index, from the version that is live to the next one: what every writing command goes through."""

import hashlib
import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.disk import DISK, Disk, disk_errors
from tritonrag_backends.index.fields import document_key
from tritonrag_backends.index.format import (
    CURRENT,
    MANIFESTS,
    SEGMENTS,
    SHARED,
    STAGING,
    Counts,
    Manifest,
    SegmentRecord,
    SharedFile,
    Tombstones,
    segment_id,
)
from tritonrag_backends.index.lock import write_lock
from tritonrag_backends.index.manifest_json import DIGEST_DIGITS, encode_manifest, manifest_file_name
from tritonrag_backends.index.search import Index
from tritonrag_backends.index.segment import Segment
from tritonrag_backends.index.store import last_segment_number, manifest_names, next_version, sweep

Mask = npt.NDArray[np.bool_]


@contextmanager
def changing(directory: Path, *, wait_s: float = 0.0, disk: Disk = DISK) -> "Iterator[Change]":
    """Hold the write lock of an index, made if it is not there, and sweep what a killed writer left.

    Raises UnavailableError where another process is writing for longer than `wait_s`, or the disk refuses. What is not
    committed when the block ends is removed; the live version is then what it was.
    """
    with disk_errors(directory):
        disk.make_directory(directory)
    with write_lock(directory, wait_s=wait_s):
        with disk_errors(directory):
            sweep(directory)
        change = Change(directory, disk)
        try:
            yield change
        finally:
            change.discard()


class Change:
    """Collects new segments and deletions, then publishes them as one version. Only inside `changing`."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self.directory = directory
        self.disk = disk
        self._staged: list[tuple[Path, SegmentRecord]] = []
        self._made: list[Path] = []
        self._dead: dict[int, Mask] = {}

    def stage(self) -> Path:
        """The path of a new folder in `staging` for a segment; it is not there yet."""
        self.disk.make_directory(self.directory / STAGING)
        folder = self.directory / STAGING / f"segment-{len(self._made)}"
        self._made.append(folder)
        return folder

    def add(self, folder: Path, record: SegmentRecord, dead: Mask | None = None) -> None:
        """Take a completed segment into the next version; `dead` BOOL [rows] are its rows that are deleted already."""
        if dead is not None and dead.any():
            record = replace(record, tombstones=self._tombstones(dead))
        self._staged.append((folder, record))

    def delete(self, segments: Iterable[Segment], document: str, tenant: str | None) -> int:
        """Delete a document's passages from these segments of the live version; how many there were."""
        deleted = 0
        for segment in segments:
            position = segment.files.fields.find(document_key(document, tenant))
            if position is None:
                continue
            rows = segment.files.fields.rows_of(position)
            dead = self._dead.get(segment.number)
            if dead is None:
                dead = np.zeros(segment.rows, np.bool_) if segment.alive is None else ~segment.alive
            fresh = rows[~dead[rows]]
            if len(fresh):
                dead[fresh] = True
                self._dead[segment.number] = dead
                deleted += len(fresh)
        return deleted

    def commit(self, cause: str, base: Manifest, kept: Sequence[SegmentRecord]) -> Manifest:
        """Publish a version: `base` gives all but its segments, which are the `kept` ones, less what was deleted, and the added.

        A crash at any point leaves the version live that was: CURRENT is replaced last, by a rename.
        """
        with disk_errors(self.directory):
            last = last_segment_number(self.directory)
            segments = [record for one in kept if (record := self._less_deleted(one)) is not None]
            for number, (folder, record) in enumerate(self._staged, start=last + 1):
                segments.append(self._moved(folder, replace(record, number=number, id=segment_id(number))))
            manifest = replace(
                base,
                index_version=next_version(self.directory),
                last_segment=last + len(self._staged),
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                cause=cause,
                segments=tuple(segments),
                counts=self._counts(base, segments),
            )
            self._publish(manifest)
        return manifest

    def share(self, what: str, array: npt.NDArray[np.generic]) -> SharedFile:
        """Write an array to `shared/`; the same array is the same file."""
        data = io.BytesIO()
        np.save(data, array, allow_pickle=False)
        digest = hashlib.sha256(data.getvalue()).hexdigest()
        name = f"{what}-{digest[:DIGEST_DIGITS]}.npy"
        self.disk.make_directory(self.directory / SHARED)
        self.disk.make_directory(self.directory / STAGING)
        write_atomically(self.directory, self.directory / SHARED / name, data.getvalue(), self.disk)
        return SharedFile(name=name, bytes=len(data.getvalue()), sha256=digest)

    def discard(self) -> None:
        """Remove what was staged and not published."""
        for folder in self._made:
            shutil.rmtree(folder, ignore_errors=True)

    def _tombstones(self, dead: Mask) -> Tombstones:
        file = self.share("tombstones", np.packbits(dead, bitorder="little"))
        return Tombstones(file=file, rows=int(np.count_nonzero(dead)))

    def _less_deleted(self, record: SegmentRecord) -> SegmentRecord | None:
        """The segment with its tombstones; None where nothing of it is left."""
        dead = self._dead.get(record.number)
        if dead is None:
            return record
        return None if dead.all() else replace(record, tombstones=self._tombstones(dead))

    def _moved(self, folder: Path, record: SegmentRecord) -> SegmentRecord:
        self.disk.make_directory(self.directory / SEGMENTS)
        self.disk.rename(folder, self.directory / SEGMENTS / record.id)
        return record

    def _counts(self, base: Manifest, segments: Sequence[SegmentRecord]) -> Counts:
        opened = [Segment.open(self.directory, record, base.vectors, verify=False) for record in segments]
        return Counts(
            documents=sum(len(segment.documents) for segment in opened),
            passages=sum(record.live_rows for record in segments),
            skipped=base.counts.skipped,
        )

    def _publish(self, manifest: Manifest) -> None:
        self.disk.make_directory(self.directory / MANIFESTS)
        self.disk.make_directory(self.directory / STAGING)
        name = manifest_file_name(manifest)
        write_atomically(self.directory, self.directory / MANIFESTS / name, encode_manifest(manifest), self.disk)
        set_current(self.directory, name, disk=self.disk)


def open_live(directory: Path) -> Index:
    """The live version, for changing it: sizes are checked, digests are not. Raises NotFoundError where there is none."""
    return Index.open(directory, fingerprint=None, verify=False)


def has_versions(directory: Path) -> bool:
    """Whether any version was ever published here."""
    return (directory / CURRENT).exists() or bool(manifest_names(directory))


def set_current(directory: Path, name: str, *, disk: Disk = DISK) -> None:
    """Make the manifest of this file name live: the last step of publication, and the whole of a rollback."""
    disk.make_directory(directory / STAGING)
    write_atomically(directory, directory / CURRENT, f"{name}\n".encode(), disk)


def write_atomically(directory: Path, target: Path, data: bytes, disk: Disk) -> None:
    """Write a file under another name, bring it to the disk, and give it its own."""
    staged = directory / STAGING / target.name
    disk.write(staged, data)
    disk.rename(staged, target)
