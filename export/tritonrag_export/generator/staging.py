"""A folder that appears whole or not at all: filled beside its place, put there by a rename."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tritonrag_client.errors import BadRequestError
from tritonrag_export.publishing import publish


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Two empty folders on the output's disk: `folder` becomes the output, `scratch` goes away."""

    folder: Path
    scratch: Path


def check_output(output: Path, manifest: str) -> None:
    """Raises BadRequestError where `output` holds anything but nothing, or an earlier export (which has a `manifest`)."""
    if not output.exists():
        return
    if not output.is_dir() or (any(output.iterdir()) and not (output / manifest).is_file()):
        raise BadRequestError(
            f"{output} exists and holds no {manifest}, so it is none of ours; name a new or empty folder"
        )


@contextmanager
def staged(output: Path) -> Iterator[Staging]:
    """Folders to work in. When the block ends well `folder` takes the place of `output`; else nothing is left of it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        staging = Staging(folder=work / "folder", scratch=work / "scratch")
        staging.folder.mkdir()
        staging.scratch.mkdir()
        yield staging
        publish(staging.folder, output)
    finally:
        shutil.rmtree(work, ignore_errors=True)
