"""The directory around the segments: which version is live, which there are, what nobody names any more."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from tritonrag_backends.index.format import (
    ADVICE,
    CURRENT,
    MANIFESTS,
    SEGMENTS,
    STAGING,
    Manifest,
    decode_manifest,
    manifest_version,
)
from tritonrag_client.errors import InternalError, NotFoundError

_CURRENT_BYTES = 256


def read_current(directory: Path) -> Manifest:
    """The live manifest. Raises NotFoundError where there is no index, InternalError where CURRENT or the manifest is damaged."""
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
    return read_manifest(directory, name)


def read_manifest(directory: Path, name: str) -> Manifest:
    """The manifest of this file name. Raises InternalError where it is missing or damaged."""
    try:
        data = (directory / MANIFESTS / name).read_bytes()
    except OSError as error:
        raise InternalError(f"{MANIFESTS}/{name} can't be read ({error.strerror}); {ADVICE}") from error
    return decode_manifest(name, data)


def manifest_names(directory: Path) -> list[str]:
    """The file names of all manifests, oldest version first: those that CURRENT may name."""
    names = [path.name for path in (directory / MANIFESTS).glob("*.json")]
    return sorted(name for name in names if manifest_version(name) is not None)


def next_version(directory: Path) -> int:
    """A version that no manifest has ever had here."""
    return 1 + max((manifest_version(name) or 0 for name in manifest_names(directory)), default=0)


def next_segment_number(directory: Path) -> int:
    """A number that no segment has here."""
    return 1 + max((int(path.name) for path in _segment_folders(directory)), default=0)


def sweep(directory: Path) -> None:
    """Remove what a writer that was killed left behind. Only with the write lock held.

    That is `staging` and every segment that no manifest names. Where a manifest can't be read, segments are left alone.
    """
    shutil.rmtree(directory / STAGING, ignore_errors=True)
    try:
        named = {record.id for name in manifest_names(directory) for record in read_manifest(directory, name).segments}
    except InternalError:
        return
    for path in _segment_folders(directory):
        if path.name not in named:
            shutil.rmtree(path, ignore_errors=True)


def _segment_folders(directory: Path) -> Iterable[Path]:
    folder = directory / SEGMENTS
    return [path for path in folder.iterdir() if path.name.isascii() and path.name.isdigit()] if folder.is_dir() else []
