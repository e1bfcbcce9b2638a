"""The doctor's look at the machine: Python, C library, memory, shared memory, disk, ports, GPU."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tritonrag.checks import Check, graded
from tritonrag.gpus import count_gpus
from tritonrag.ports import is_free
from tritonrag.processes import SHARED_MEMORY

GIB = 2**30
MIB = 2**20
_PYTHONS = ((3, 11), (3, 12))
_GLIBC = (2, 35)  # the wheel's tag: manylinux_2_35_x86_64
_PROBE_TIMEOUT_S = 10


def machine_checks(state: Path, ports: Mapping[str, int]) -> Iterator[Check]:
    """All of them. `state` is where our files will lie, `ports` what `serve` would listen on."""
    yield python_check(sys.version_info[:2], sys.executable)
    yield glibc_check(*platform.libc_ver(), machine=platform.machine())
    yield memory_check(available_bytes())
    yield shared_memory_check(SHARED_MEMORY)
    yield disk_check(state)
    for service, port in ports.items():
        yield port_check(service, port)
    yield gpu_check(shutil.which("nvidia-smi"))


def python_check(version: tuple[int, int], executable: str) -> Check:
    """Whether this Python is one that we are built and tested for."""
    text = f"{version[0]}.{version[1]} ({executable})"
    if version in _PYTHONS:
        return Check(name="Python", status="ok", found=text)
    return Check(
        name="Python", status="fail", found=text, advice="use Python 3.11 or 3.12: make demo PYTHON=python3.11"
    )


def glibc_check(library: str, version: str, *, machine: str) -> Check:
    """Whether the wheel's programs can run with this C library and processor."""
    found = f"{library or 'not glibc'} {version}, {machine}"
    parts = version.split(".")
    number = (int(parts[0]), int(parts[1])) if len(parts) > 1 and all(part.isdigit() for part in parts[:2]) else (0, 0)
    if library == "glibc" and number >= _GLIBC and machine == "x86_64":
        return Check(name="C library", status="ok", found=found)
    advice = (
        "the Triton in the wheel needs glibc 2.35 or newer on x86_64: Debian 12, Ubuntu 22.04, or the production image"
    )
    return Check(name="C library", status="fail", found=found, advice=advice)


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """The memory that programs can still have, by the kernel's own estimate."""
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def memory_check(available: int) -> Check:
    """Whether the models and a small index fit."""
    advice = "Triton with the embedding model takes about 1 GiB, and the index on top; stop other programs"
    found = f"{available / GIB:.1f} GiB available"
    return graded("memory", found, value=available, warn_below=2 * GIB, fail_below=GIB // 2, advice=advice)


def shared_memory_check(folder: Path) -> Check:
    """Whether Triton and its Python processes have room to pass tensors: each takes 1 MiB, and more for large batches."""
    if not folder.is_dir():
        return Check(name="shared memory", status="fail", found=f"no {folder}", advice=f"mount a tmpfs at {folder}")
    free = shutil.disk_usage(folder).free
    advice = "give the container more: docker run --shm-size=1g, in Kubernetes an emptyDir with medium: Memory"
    found = f"{free / MIB:,.0f} MiB free in {folder}"
    return graded("shared memory", found, value=free, warn_below=256 * MIB, fail_below=32 * MIB, advice=advice)


def disk_check(folder: Path) -> Check:
    """Whether there is room where our files will lie, and we may write there."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not os.access(existing, os.W_OK):
        return Check(
            name="disk", status="fail", found=f"{existing} can't be written", advice="change to a folder of your own"
        )
    free = shutil.disk_usage(existing).free
    found = f"{free / GIB:.1f} GiB free for {folder}"
    return graded(
        "disk", found, value=free, warn_below=GIB, fail_below=GIB // 5, advice="free some space, or work elsewhere"
    )


def port_check(service: str, port: int) -> Check:
    """Whether `serve` could listen where it does unless told otherwise."""
    if is_free("127.0.0.1", port):
        return Check(name=f"{service} port", status="ok", found=f"{port} is free")
    advice = f"tritonrag serve --{service}-port 0 takes a free one; or stop what listens there"
    return Check(name=f"{service} port", status="warn", found=f"{port} is taken", advice=advice)


def gpu_check(nvidia_smi: str | None) -> Check:
    """Which GPU there is; none is fine, everything runs on the CPU."""
    if nvidia_smi is None and count_gpus():
        found = f"{count_gpus()} visible; nvidia-smi, which would name them, is not there"
        return Check(name="GPU", status="ok", found=found)
    if nvidia_smi is None:
        return Check(name="GPU", status="ok", found="none; the profile cpu needs none")
    query = [nvidia_smi, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(
            name="GPU", status="warn", found=f"{nvidia_smi} failed: {error}", advice="look at the NVIDIA driver"
        )
    if answer.returncode != 0:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        found = f"nvidia-smi: {said[0] if said else f'status {answer.returncode}'}"
        return Check(
            name="GPU", status="warn", found=found, advice="look at the NVIDIA driver; the profile cpu needs none"
        )
    names = "; ".join(answer.stdout.split("\n")).strip("; ")
    return Check(name="GPU", status="ok", found=f"{names} ({count_gpus()} visible to us)")
