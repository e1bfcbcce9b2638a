"""The machine on which something was measured, in words for a report."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`cores` are those that this process may use; `memory_gib` is all of the machine's."""

    cpu: str
    cores: int
    memory_gib: float
    system: str

    @classmethod
    def this(cls) -> "Machine":
        """The one we run on."""
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(
            cpu=cpu_model(Path("/proc/cpuinfo")),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(memory_bytes / 2**30, 1),
            system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        )

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib:g} GiB of memory, {self.system}"


def cpu_model(cpuinfo: Path) -> str:
    """The processor's name as Linux tells it, else its architecture."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
