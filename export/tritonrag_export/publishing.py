"""A finished folder takes its place: a crash leaves the old one, or the new one, never half of one."""

import os
import shutil
import tempfile
from pathlib import Path


def publish(folder: Path, output: Path) -> None:
    """Rename `folder` to `output`, after everything is on disk.

    Replacing takes two renames (a folder can't be renamed over a full one), so a crash between them leaves none at `output`
    and the old one beside it.
    """
    for path in (*folder.rglob("*"), folder):
        # Temporary files are ours alone; a server may run as another user.
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    if output.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{output.name}-old-", dir=output.parent))
        output.rename(old)
        folder.rename(output)
        shutil.rmtree(old)
    else:
        folder.rename(output)
    _sync(output.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
