"""Where perf_analyzer is on this machine, and what it needs to start without root.

tritonclient's wheel carries the program; the two libraries that it misses lie in the nvidia-pytriton wheel under hashed
names, so a private folder of links on LD_LIBRARY_PATH gives it all that it needs.
"""

import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from tritonrag_client.errors import NotFoundError

_PROGRAM = "perf_analyzer"
_PACKAGES = ("perf-analyzer", "tritonclient")  # the newer home of the program first
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}  # name wanted: name in wheel
_WAY_OUT = (
    "with glibc 2.38 or newer `pip install perf-analyzer`, with an older one `pip install 'tritonclient[all]==2.51.0'`"
)


def find_binary() -> Path:
    """perf_analyzer as an installed package brought it, else as PATH has it. Raises NotFoundError."""
    for package in _PACKAGES:
        try:
            files = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == _PROGRAM and Path(str(file.locate())).is_file():
                return Path(str(file.locate())).resolve()
    on_path = shutil.which(_PROGRAM)
    if on_path is None:
        raise NotFoundError(f"{_PROGRAM} is neither in the packages {' and '.join(_PACKAGES)} nor on PATH; {_WAY_OUT}")
    return Path(on_path)


def link_libraries(folder: Path) -> Path:
    """Fill `folder` with links to the libraries in the nvidia-pytriton wheel, under the names that the loader asks for.

    One that the wheel lacks is left to the system's own loader. Returns `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, pattern in _LIBRARIES.items():
        link = folder / name
        link.unlink(missing_ok=True)
        for library in sorted(_wheel_libraries().glob(pattern))[:1]:
            link.symlink_to(library)
    return folder.resolve()


def read_version(binary: Path, libraries: Path) -> str:
    """The version that the program tells, which shows that it starts. Raises NotFoundError with the way out."""
    command = [str(binary), "--version"]
    try:
        result = subprocess.run(
            command, env=environment(libraries), capture_output=True, text=True, timeout=30, check=False
        )
    except OSError as error:
        raise NotFoundError(f"{binary.name} does not start ({error.strerror}); {_WAY_OUT}") from error
    except subprocess.TimeoutExpired as error:
        raise NotFoundError(f"{binary.name} did not tell its version within 30 s; {_WAY_OUT}") from error
    found = re.search(r"Version (\S+)", result.stdout + result.stderr)
    if result.returncode != 0 or found is None:
        reason = result.stderr.strip()[-300:] or f"exit status {result.returncode}"
        raise NotFoundError(f"{binary.name} does not run here: {reason}; {_WAY_OUT}")
    return found[1]


def _wheel_libraries() -> Path:
    try:
        return Path(str(metadata.distribution("nvidia-pytriton").locate_file("nvidia_pytriton.libs")))
    except metadata.PackageNotFoundError:
        return Path("nvidia_pytriton.libs")  # matches nothing, and the check that follows says what is missing


def environment(libraries: Path) -> dict[str, str]:
    """The environment of our process, with `libraries` first where the loader looks."""
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {**os.environ, "LD_LIBRARY_PATH": f"{libraries}:{inherited}" if inherited else str(libraries)}
