"""What an index is asked besides searching: delete documents, go back, check it, tell of it, remove old versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonrag_backends.index.arrays import check_file
from tritonrag_backends.index.change import changing, open_live, set_current
from tritonrag_backends.index.disk import DISK, Disk, disk_errors
from tritonrag_backends.index.format import (
    CURRENT,
    MANIFESTS,
    RESUME,
    SEGMENTS,
    SHARED,
    STAGING,
    FileRecord,
    Manifest,
    SharedFile,
)
from tritonrag_backends.index.lock import is_merging
from tritonrag_backends.index.manifest_json import manifest_version
from tritonrag_backends.index.search import Index
from tritonrag_backends.index.store import (
    MERGE_STAGING,
    manifest_names,
    read_current,
    read_current_name,
    read_manifest,
    remove,
    sweep_unnamed,
)
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError

DEFAULT_KEPT: Final = 3
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What a deletion did. `missing` documents were not there."""

    manifest: Manifest
    documents: int
    passages: int
    missing: tuple[str, ...]


def delete_documents(
    directory: Path,
    documents: Sequence[str],
    *,
    tenant: str | None = None,
    missing_ok: bool = False,
    wait_s: float = 0.0,
    disk: Disk = DISK,
) -> Deleted:
    """Publish a version without these documents of this tenant (None: of those that belong to none).

    Raises NotFoundError, and then deletes nothing, where one is not there, unless `missing_ok`; UnavailableError as `changing`.
    """
    with changing(directory, wait_s=wait_s, disk=disk) as change:
        live = open_live(directory)
        counts = {document: change.delete(live.segments, document, tenant) for document in dict.fromkeys(documents)}
        missing = tuple(document for document, passages in counts.items() if not passages)
        if missing and not missing_ok:
            raise NotFoundError(_missing_in_words(missing, tenant))
        manifest = live.manifest
        if any(counts.values()):
            manifest = change.commit("index delete", live.manifest, live.manifest.segments)
    return Deleted(
        manifest=manifest, documents=len(counts) - len(missing), passages=sum(counts.values()), missing=missing
    )


def rollback(directory: Path, version: int | None = None, *, wait_s: float = 0.0, disk: Disk = DISK) -> tuple[int, int]:
    """Make an older version live (None: the one before the live one), once all its files are checked; (from, to).

    Works where the live version is damaged. Raises NotFoundError where there is no such version, InternalError where it is damaged.
    """
    with changing(directory, wait_s=wait_s, disk=disk):
        names = {number: name for name in manifest_names(directory) if (number := manifest_version(name)) is not None}
        live = _live_version(directory)
        target = max((number for number in names if number < live), default=None) if version is None else version
        if target not in names:
            what = f"no version before {live}" if version is None else f"no version {version}"
            raise NotFoundError(f"there is {what} of the index {directory}; there are {sorted(names) or 'none'}")
        problems = _problems(directory, read_manifest(directory, names[target]))
        if problems:
            raise InternalError(problems[0])
        with disk_errors(directory):
            set_current(directory, names[target], disk=disk)
    return live, target


def verify(directory: Path, *, every_version: bool = False) -> list[str]:
    """Hold every file of the live version (or of all) to its digest, and open it; what is wrong, in words. Empty: nothing is.

    Raises NotFoundError where there is no index.
    """
    try:
        current = read_current(directory)
    except InternalError as error:
        return [error.message, *(_of_all_versions(directory) if every_version else [])]
    return list(dict.fromkeys(_of_all_versions(directory) if every_version else _problems(directory, current)))


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """One version in the list of `status`."""

    version: int
    created_at: str
    cause: str
    documents: int
    passages: int
    live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The live version, all versions (oldest first), and where the bytes are.

    `index_bytes` is what the live version needs, `other_bytes` what older versions and leftovers hold besides.
    """

    manifest: Manifest
    versions: tuple[VersionStatus, ...]
    index_bytes: int
    other_bytes: int
    unfinished_bytes: int
    merging: bool


def status(directory: Path) -> Status:
    """Tell of an index without opening its segments. Raises NotFoundError where there is none, InternalError for a damaged one."""
    live = read_current(directory)
    needed = sum(file.bytes for record in live.segments for file in record.files.values())
    needed += sum(file.bytes for file in live.shared_files)
    versions = [read_manifest(directory, name) for name in manifest_names(directory)]
    return Status(
        manifest=live,
        versions=tuple(_version_status(one, live) for one in versions),
        index_bytes=needed,
        other_bytes=_bytes_under(directory / SEGMENTS) + _bytes_under(directory / SHARED) - needed,
        unfinished_bytes=_bytes_under(directory / STAGING) + _bytes_under(directory / RESUME),
        merging=is_merging(directory),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `collect_garbage` did."""

    kept: tuple[int, ...]
    removed: tuple[int, ...]
    freed_bytes: int


def collect_garbage(directory: Path, *, keep: int = DEFAULT_KEPT, wait_s: float = 0.0, disk: Disk = DISK) -> Collected:
    """Remove all versions but the live one and the `keep` newest, with the files that no kept version needs, and leftovers.

    A server that still has an older version open goes on with it: mapped files live until they are closed. The newest version
    always stays, so that no number is ever used twice.
    """
    if keep < 1:
        raise BadRequestError(f"keep is {keep}; keep at least 1 version")
    with changing(directory, wait_s=wait_s, disk=disk), disk_errors(directory):
        names = manifest_names(directory)
        kept = {read_current_name(directory), *names[-keep:]}
        manifests = [read_manifest(directory, name) for name in sorted(kept)]
        removed = [name for name in names if name not in kept]
        for name in removed:  # which may be damaged, or of an older format
            (directory / MANIFESTS / name).unlink()
        if removed:
            disk.sync(directory / MANIFESTS)
        freed = sweep_unnamed(directory, manifests)
        freed += sum(remove(path) for path in (directory / STAGING).glob("*") if path.name != MERGE_STAGING)
        freed += remove(directory / RESUME)
    return Collected(
        kept=tuple(manifest.index_version for manifest in manifests),
        removed=tuple(version for name in removed if (version := manifest_version(name)) is not None),
        freed_bytes=freed,
    )


def _live_version(directory: Path) -> int:
    """The live version's number; where its manifest is damaged, what CURRENT says; where CURRENT is, above all there are."""
    try:
        text = (directory / CURRENT).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        text = ""
    number = manifest_version(text)
    if number is not None:
        return number
    return 1 + max((manifest_version(name) or 0 for name in manifest_names(directory)), default=0)


def _of_all_versions(directory: Path) -> list[str]:
    problems: list[str] = []
    for name in manifest_names(directory):
        try:
            problems += _problems(directory, read_manifest(directory, name))
        except InternalError as error:
            problems.append(error.message)
    return problems


def _problems(directory: Path, manifest: Manifest) -> list[str]:
    """What is wrong with the files of a version; all of them are read."""
    files: list[tuple[Path, FileRecord | SharedFile]] = [
        (directory / SEGMENTS / one.id / name, file) for one in manifest.segments for name, file in one.files.items()
    ]
    files += [(directory / SHARED / file.name, file) for file in manifest.shared_files]
    problems: list[str] = []
    for path, record in files:
        try:
            check_file(path, record, verify=True)
        except InternalError as error:
            problems.append(error.message)
    if not problems:
        try:
            Index.of(directory, manifest, verify=False)
        except InternalError as error:
            problems.append(error.message)
    return problems


def _version_status(manifest: Manifest, live: Manifest) -> VersionStatus:
    return VersionStatus(
        version=manifest.index_version,
        created_at=manifest.created_at,
        cause=manifest.cause,
        documents=manifest.counts.documents,
        passages=manifest.counts.passages,
        live=manifest.index_version == live.index_version,
    )


def _bytes_under(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def _missing_in_words(missing: Sequence[str], tenant: str | None) -> str:
    named = ", ".join(repr(document) for document in missing[:_MOST_NAMED])
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    whose = f"tenant {tenant!r} has" if tenant else "among documents that belong to no tenant there is"
    return (
        f"{whose} no document {named}{more}, so nothing was deleted; name documents by the id under which they were added: a "
        "file's path as it was given, a JSONL line's id; or pass over those that are missing (--missing-ok)"
    )
