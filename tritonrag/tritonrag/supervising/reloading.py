"""Having a model loaded anew: beside the old one where that still serves, else after it was unloaded."""

import os
import shutil
from pathlib import Path

from tritonrag.supervising.stubs import StubWatch
from tritonrag.supervising.triton_api import TritonApi
from tritonrag_client.contract import GENERATOR
from tritonrag_client.errors import RagError


def can_serve_meanwhile(model: str, stubs: StubWatch, *, has_gpus: bool) -> bool:
    """Whether a model has a healthy process left, and memory is no reason to end it first.

    A language model, and what holds GPU memory, is not to be there twice.
    """
    return model != GENERATOR and not has_gpus and bool(stubs.healthy(model))


async def reload(model: str, repository: Path, api: TritonApi, stubs: StubWatch, *, beside: bool) -> None:
    """Replace a model's processes; returns when the new ones serve. Raises RagError where Triton can't load it.

    `beside`: Triton loads the new ones while the healthy old ones serve, and switches over. Measured with two processes of
    `retrieve`, one of them killed, 15 requests/s: 5 of 105 failed, in place of all for as long as loading takes.
    """
    if beside:
        try:
            seem_changed(repository / model)
            await api.load(model)
        except (RagError, OSError):  # the old ones are still there, and in the way perhaps; or the disk is full
            pass
        else:
            stubs.find_anew()
            if stubs.of(model):
                return
    await api.unload(model)
    await api.load(model)
    stubs.find_anew()


def seem_changed(folder: Path) -> None:
    """Make a model's folder look changed to Triton, which otherwise does not load a model that it has: new folders of links.

    Raises OSError where that can't be; the folder is then as it was.
    """
    for version in [entry for entry in folder.iterdir() if entry.name.isdecimal() and entry.is_dir()]:
        fresh = folder / f".{version.name}"
        try:
            _link_all(version, fresh)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        if version.is_symlink():
            version.unlink()
        else:
            shutil.rmtree(version)
        fresh.rename(version)


def _link_all(version: Path, fresh: Path) -> None:
    fresh.mkdir()
    for part in version.iterdir():
        if part.name != "__pycache__":
            (fresh / part.name).symlink_to(os.path.realpath(part))
