"""How many GPUs a process that we start would see."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_DEVICE_FILE: Final = re.compile(r"nvidia\d+")


def count_gpus(
    environment: Mapping[str, str] | None = None,
    *,
    devices: Path = Path("/dev"),
    driver: Path = Path("/proc/driver/nvidia/gpus"),
) -> int:
    """The GPUs that CUDA shows to a process with this environment (None: ours): numbers 0 to the count without it.

    A container may list its host's cards below `driver` but has device files for its own alone, so these count where there are
    any. CUDA_VISIBLE_DEVICES takes cards away and ends at the first entry that names none.
    """
    files = sum(1 for path in devices.glob("nvidia*") if _DEVICE_FILE.fullmatch(path.name))
    present = files or sum(1 for _ in driver.glob("*"))
    visible = (os.environ if environment is None else environment).get(_VISIBLE)
    return present if visible is None or not present else min(present, len(_named(visible, present)))


def _named(visible: str, present: int) -> list[str]:
    """The entries that name a card: a number below `present`, or a UUID (GPU-..., MIG-...), up to the first that does not."""
    named: list[str] = []
    for entry in (part.strip() for part in visible.split(",")):
        if not (entry.startswith(("GPU-", "MIG-")) or (entry.isdecimal() and int(entry) < present)) or entry in named:
            break
        named.append(entry)
    return named
