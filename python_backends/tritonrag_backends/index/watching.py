"""The files of the version that is served, watched. They are mapped: whoever writes into one changes what is answered.

A version's files are held to their sha256 when it is opened and never change after that. Only what is written through the file
system is noticed: a disk that forgets a bit is for `tritonrag index verify` to find.
"""

from pathlib import Path

from tritonrag_backends.index.format import SEGMENTS, SHARED, Manifest

Stamp = tuple[int, int, int]  # inode, bytes, when it was last written to, ns


class FileWatch:
    """The files of one version after the other; for one thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._manifest: Manifest | None = None
        self._stamps: dict[str, Stamp] = {}
        self._expected: tuple[Manifest | None, dict[str, Stamp]] = (None, {})

    def expect(self, manifest: Manifest) -> None:
        """Before this version's files are opened: what is written into them from now on is noticed."""
        self._expected = manifest, self._stamps_of(manifest)

    def look(self, manifest: Manifest) -> str:
        """What was changed in place since this version was expected, else since the first look at it; "" where nothing was.

        A file that was removed or replaced is none: what is mapped is what was there.
        """
        if manifest is not self._manifest:
            expected, stamps = self._expected
            self._manifest, self._stamps = manifest, stamps if expected == manifest else self._stamps_of(manifest)
            self._expected = None, {}
        changed = [name for name, stamp in self._stamps.items() if self._differs(name, stamp)]
        if not changed:
            return ""
        more = f" and {len(changed) - 1} more were" if changed[1:] else " was"
        return (
            f"the index file {changed[0]}{more} changed while it was served, so that what is found may be wrong; "
            "check with `tritonrag index verify`, and go back to a version that is whole with `tritonrag index rollback`"
        )

    def _differs(self, name: str, before: Stamp) -> bool:
        now = self._stamp(name)
        return now is not None and now[0] == before[0] and now != before

    def _stamps_of(self, manifest: Manifest) -> dict[str, Stamp]:
        return {name: stamp for name in _names(manifest) if (stamp := self._stamp(name)) is not None}

    def _stamp(self, name: str) -> Stamp | None:
        try:
            status = (self._directory / name).stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


def _names(manifest: Manifest) -> list[str]:
    """Those that are mapped; the others in `shared/` were read when the version was opened."""
    segments = [f"{SEGMENTS}/{segment.id}/{name}" for segment in manifest.segments for name in segment.files]
    projection = manifest.vectors.projection
    return [*segments, f"{SHARED}/{projection.name}"] if projection else segments
