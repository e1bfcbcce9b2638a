"""The directory around the segments: which version is live, which there are, what nobody names any more."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from tritonrag_backends.index.arrays import check_file, map_array
from tritonrag_backends.index.format import (
    ADVICE,
    CURRENT,
    MANIFESTS,
    SEGMENTS,
    SHARED,
    STAGING,
    Manifest,
    SharedFile,
)
from tritonrag_backends.index.lock import is_merging
from tritonrag_backends.index.manifest_json import decode_manifest, manifest_version
from tritonrag_backends.index.vectors import Float32Array, VectorSpace
from tritonrag_client.errors import InternalError, NotFoundError

_CURRENT_BYTES: Final = 256
# What a merge is writing; it holds its own lock, so a writer that sweeps leaves it alone.
MERGE_STAGING: Final = "merge"


def read_current_name(directory: Path) -> str:
    """The file name of the live manifest. Raises NotFoundError where there is no index, InternalError where CURRENT is damaged."""
    try:
        with (directory / CURRENT).open("rb") as file:
            data = file.read(_CURRENT_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        why = f"it has no file {CURRENT}" if directory.is_dir() else "no such directory"
        raise NotFoundError(
            f"there is no index at {directory}: {why}; build one with `tritonrag index build`"
        ) from error
    except OSError as error:
        raise InternalError(f"{CURRENT} can't be read ({error.strerror}); {ADVICE}") from error
    name = data.decode("ascii", errors="replace").removesuffix("\n")
    if manifest_version(name) is None or not data.endswith(b"\n"):
        raise InternalError(
            f"{CURRENT} is damaged: it holds {data[:80]!r}, which is not one line with a manifest's name; {ADVICE}"
        )
    return name


def read_current(directory: Path) -> Manifest:
    """The live manifest. Raises NotFoundError where there is no index, InternalError where CURRENT or the manifest is damaged."""
    return read_manifest(directory, read_current_name(directory))


def read_manifest(directory: Path, name: str) -> Manifest:
    """The manifest of this file name. Raises InternalError where it is missing or damaged."""
    try:
        data = (directory / MANIFESTS / name).read_bytes()
    except OSError as error:
        raise InternalError(
            f"{MANIFESTS}/{name} can't be read ({error.strerror}): it was removed, or {CURRENT} is damaged; {ADVICE}"
        ) from error
    return decode_manifest(name, data)


def manifest_names(directory: Path) -> list[str]:
    """The file names of all manifests, oldest version first: those that CURRENT may name."""
    names = [path.name for path in (directory / MANIFESTS).glob("*.json")]
    return sorted(name for name in names if manifest_version(name) is not None)


def next_version(directory: Path) -> int:
    """A version that no manifest has ever had here."""
    return 1 + max((manifest_version(name) or 0 for name in manifest_names(directory)), default=0)


def last_segment_number(directory: Path) -> int:
    """The highest number that a segment has or, as far as any version that can be read knows, ever had here."""
    known = [0, *(int(path.name) for path in segment_folders(directory))]
    for name in manifest_names(directory):
        with suppress(
            InternalError
        ):  # a damaged index, or one of an older format, must not keep a new build from its place
            known.append(read_manifest(directory, name).last_segment)
    return max(known)


def open_shared(directory: Path, file: SharedFile, shape: tuple[int, ...], *, verify: bool = True) -> Float32Array:
    """Map an FP32 array of `shared/`. Raises InternalError where it is not what the manifest says."""
    path = directory / SHARED / file.name
    check_file(path, file, verify=verify)
    return map_array(path, np.dtype("<f4"), shape)


def open_space(directory: Path, manifest: Manifest, *, verify: bool = True) -> VectorSpace:
    """How this version shortens embeddings. Raises InternalError where the projection is damaged."""
    file, projection = manifest.vectors.projection, None
    if file is not None:
        projection = open_shared(directory, file, (manifest.embedding.dim, manifest.vectors.dims), verify=verify)
    return VectorSpace(record=manifest.vectors, projection=projection)


def open_queries(directory: Path, manifest: Manifest) -> Float32Array | None:
    """The held-out queries FP32 [n, dim] that this version is tuned to; None where it has none."""
    if manifest.queries is None:
        return None
    path = directory / SHARED / manifest.queries.name
    check_file(path, manifest.queries, verify=True)
    with path.open("rb") as file:
        np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        shape, _, _ = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
    return map_array(path, np.dtype("<f4"), (shape[0], manifest.embedding.dim))


def sweep(directory: Path) -> None:
    """Remove what a writer that was killed left behind. Only with the write lock held.

    That is `staging` (but for what a merge that runs is writing), and every segment and shared file that no manifest names.
    Where a manifest can't be read, those are left alone.
    """
    for path in (directory / STAGING).glob("*"):
        if path.name != MERGE_STAGING or not is_merging(directory):
            remove(path)
    try:
        manifests = [read_manifest(directory, name) for name in manifest_names(directory)]
    except InternalError:
        return
    sweep_unnamed(directory, manifests)


def sweep_unnamed(directory: Path, manifests: Iterable[Manifest]) -> int:
    """Remove segments and shared files that none of these manifests names; how many bytes that freed."""
    manifests = list(manifests)
    segments = {record.id for manifest in manifests for record in manifest.segments}
    shared = {file.name for manifest in manifests for file in manifest.shared_files}
    unnamed = [path for path in segment_folders(directory) if path.name not in segments]
    unnamed += [path for path in (directory / SHARED).glob("*.npy") if path.name not in shared]
    return sum(remove(path) for path in unnamed)


def remove(path: Path) -> int:
    """Remove a file or a folder; how many bytes it had. What is gone already, or can't be removed, is left."""
    freed = sum(inner.lstat().st_size for inner in (path, *path.rglob("*")) if inner.is_file())
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return freed


def segment_folders(directory: Path) -> Iterable[Path]:
    """The folders of the segments that lie here."""
    folder = directory / SEGMENTS
    return [path for path in folder.iterdir() if path.name.isascii() and path.name.isdigit()] if folder.is_dir() else []
