"""Where Triton's parts are: in the installed wheel, or in an installed Triton such as that of NVIDIA's image."""

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonrag_client.errors import NotFoundError

PACKAGE: Final = "nvidia-pytriton==0.7.0"
TRITON_DIR: Final = "TRITONRAG_TRITON_DIR"
IMAGE_TRITON: Final = Path("/opt/tritonserver")  # where NVIDIA's images have it
_STUB: Final = "triton_python_backend_stub"


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonParts:
    """A program, folders and the stub that runs Python models. `advice` is what helps where one of them is broken."""

    tritonserver: Path
    backends: Path
    caches: Path
    stub: Path
    libraries: Path
    advice: str

    @property
    def python_backend(self) -> Path:
        """The folder of the backend that runs our models."""
        return self.backends / "python"

    def backend_names(self) -> frozenset[str]:
        """The backends that this Triton has."""
        return frozenset(folder.name for folder in self.backends.iterdir() if folder.is_dir())

    def library_path(self) -> str:
        """LD_LIBRARY_PATH for tritonserver and the stubs: libpython's folder, Triton's libraries, and what was there before."""
        folders = [str(self.libraries)]
        libdir = Path(sysconfig.get_config_var("LIBDIR") or "/nonexistent")
        if (libdir / (sysconfig.get_config_var("INSTSONAME") or "libpython3.so")).exists():
            folders.insert(0, str(libdir))
        inherited = os.environ.get("LD_LIBRARY_PATH")
        return ":".join([*folders, inherited] if inherited else folders)


def find_triton(
    given: Path | None = None, *, environment: Mapping[str, str] | None = None, image: Path = IMAGE_TRITON
) -> TritonParts:
    """The Triton in the given folder, else in that of TRITONRAG_TRITON_DIR, else of the wheel, else of the image.

    Raises NotFoundError that names the missing part.
    """
    named = (os.environ if environment is None else environment).get(TRITON_DIR)
    folder = given or (Path(named) if named else None)
    if folder is not None:
        return _installed(folder.absolute())
    if importlib.util.find_spec("pytriton") is None and image.is_dir():
        return _installed(image)
    return find_wheel()


def find_wheel() -> TritonParts:
    """Find the parts without importing the wheel's package; raises NotFoundError that names the missing part."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise NotFoundError(
            f"the package that carries tritonserver is not installed; pip install {PACKAGE}, or give --triton-dir the folder of"
            " an installed Triton"
        )
    package = Path(spec.origin).parent
    triton = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wheel = TritonParts(
        tritonserver=triton / "bin/tritonserver",
        backends=triton / "backends",
        caches=triton / "caches",
        stub=triton / "python_backend_stubs" / version / _STUB,
        libraries=package.parent / "nvidia_pytriton.libs",
        advice=f"pip install --force-reinstall {PACKAGE}",
    )
    _require(wheel, f"there is no Triton for Python {version}")
    return wheel


def _installed(folder: Path) -> TritonParts:
    """A folder laid out as Triton's own build and NVIDIA's images lay it out."""
    parts = TritonParts(
        tritonserver=folder / "bin/tritonserver",
        backends=folder / "backends",
        caches=folder / "caches",
        stub=folder / "backends/python" / _STUB,
        libraries=folder / "lib",
        advice=f"give --triton-dir (now {folder}) the folder of a Triton that is whole",
    )
    _require(parts, f"{folder} holds no Triton")
    return parts


def _require(parts: TritonParts, problem: str) -> None:
    for part in (parts.tritonserver, parts.python_backend, parts.stub, parts.libraries):
        if not part.exists():
            raise NotFoundError(f"{part} is missing, so {problem}; {parts.advice}")
