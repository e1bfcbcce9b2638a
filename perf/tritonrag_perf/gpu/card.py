"""The graphics card on which something is measured, as its driver tells it."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tritonrag_client.errors import NotFoundError

_QUERY: Final = ("name", "driver_version", "memory.total", "compute_cap", "clocks.max.sm", "power.limit")
_TIMEOUT_S: Final = 30

Output = Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Memory in MiB, the greatest clock in MHz, the power limit in W; `cuda` is the newest version that the driver knows."""

    name: str
    driver: str
    cuda: str
    memory_mib: int
    compute_capability: str
    clock_mhz: str
    power_w: str

    def __str__(self) -> str:
        """For people."""
        memory = f"{self.memory_mib:,} MiB, {self.power_w} W, up to {self.clock_mhz} MHz"
        return f"{self.name} ({memory}), driver {self.driver}, CUDA {self.cuda}"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a record."""
        return asdict(self)


def output_of(command: Sequence[str]) -> str:
    """What a program prints; "" where there is no such program or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def find_card(output: Output = output_of) -> Card | None:
    """The first card that the driver shows; None where there is none. `output` runs a program and gives what it prints."""
    rows = output(["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]).splitlines()
    if not rows:
        return None
    values = [value.strip() for value in rows[0].split(",")]
    if len(values) != len(_QUERY) or not values[2].isdigit():
        raise NotFoundError(
            f"nvidia-smi answers {rows[0]!r}, which is no card as we know it; look at nvidia-smi by hand"
        )
    name, driver, memory, capability, clock, power = values
    return Card(
        name=name,
        driver=driver,
        cuda=_cuda_version(output(["nvidia-smi"])),
        memory_mib=int(memory),
        compute_capability=capability,
        clock_mhz=clock,
        power_w=power,
    )


def _cuda_version(text: str) -> str:
    """From the head of nvidia-smi's table: "... CUDA Version: 13.0  |"."""
    _, _, rest = text.partition("CUDA Version:")
    return rest.split("|", maxsplit=1)[0].split()[0] if rest.strip() else "unknown"
