"""What folders of exported models share: a manifest that holds each file to its length and its SHA-256."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What a file must be: its length and the SHA-256 of its bytes (hex)."""

    bytes: int
    sha256: str


def record_file(path: Path) -> FileRecord:
    """Length and SHA-256 of a file as it lies on disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(bytes=path.stat().st_size, sha256=digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderKind:
    """One kind of folder: its noun with the article before it, its manifest's file and format, and the way out of what is wrong."""

    article: str
    noun: str
    manifest_file: str
    format_version: int
    way_out: str

    def read(self, directory: Path, build: Callable[[dict[str, Any]], T]) -> T:
        """The folder's manifest, which `build` makes of the JSON object; it may raise ValueError, TypeError, KeyError.

        Raises NotFoundError where there is none, BadRequestError where it is of another format, InternalError where it is damaged.
        """
        path = directory / self.manifest_file
        text = self._text(directory, path)
        try:
            fields = json.loads(text)
            version = fields["format_version"]
            if version != self.format_version:
                raise BadRequestError(
                    f"{path} is of format {version!r}, and this program reads format {self.format_version}; {self.way_out}"
                )
            return build(fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InternalError(
                f"{path} is damaged: it can't be read as a manifest ({error}); {self.way_out}"
            ) from error

    def verify(self, directory: Path, files: Mapping[str, FileRecord], names: Collection[str]) -> None:
        """Hold the named files to their records. Raises NotFoundError (missing) or InternalError (damaged, unrecorded)."""
        for name in names:
            if name not in files:
                raise InternalError(f"the {self.noun} in {directory} records no {name}; {self.way_out}")
            path = directory / name
            if not path.is_file():
                raise NotFoundError(f"the {self.noun} in {directory} lacks its file {name}; {self.way_out}")
            if record_file(path) != files[name]:
                raise InternalError(
                    f"{path} is damaged: its SHA-256 is not the one in {self.manifest_file}; {self.way_out}"
                )

    def _text(self, directory: Path, path: Path) -> str:
        if not directory.is_dir():
            raise NotFoundError(f"there is no {self.noun} folder at {directory}; {self.way_out}")
        if not path.is_file():
            raise NotFoundError(
                f"{directory} is not {self.article} {self.noun} folder: it holds no {self.manifest_file}; {self.way_out}"
            )
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InternalError(f"{path} is damaged: it is not UTF-8; {self.way_out}") from error


def records_of(fields: Mapping[str, Any]) -> dict[str, FileRecord]:
    """The `files` of a manifest's JSON object."""
    return {name: FileRecord(**record) for name, record in fields["files"].items()}
