"""How many threads an instance of a model may run, so that all instances together fit the machine's cores."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CGROUP_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
# The embedder works on the same cores, and harder. Measured on two cores, 32 clients of `retrieve`, two threads in the retriever
# over one, medians of 4 rounds: 7k passages, flat, 0.78 dense and 0.79 hybrid; 97k, hnsw, 0.88 and 1.08.
_SEARCH_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadPlan:
    """`threads` in each of `instances` processes on `cores` cores; `too_many` where they don't fit."""

    threads: int
    instances: int
    cores: int

    @property
    def too_many(self) -> bool:
        """Whether the instances together run more threads than there are cores, although each could do with fewer."""
        return self.threads > 1 and self.threads * self.instances > self.cores


def plan_threads(wanted: int, *, instances: int, cores: int) -> ThreadPlan:
    """`wanted` threads for each instance; 0: its share of half of the cores, at least one."""
    automatic = max(1, int(cores * _SEARCH_SHARE) // instances)
    return ThreadPlan(threads=wanted or automatic, instances=instances, cores=cores)


def count_instances(model_config: str) -> int:
    """The instances of a model in one server, from the JSON that Triton hands to `initialize` as `model_config`."""
    groups = json.loads(model_config).get("instance_group", [])
    return max(1, sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", []))) for group in groups))


def allowed_cores(quota: Path = _CGROUP_QUOTA) -> int:
    """The cores that this process may use: its affinity, and in a container what the CPU limit comes to, rounded up."""
    cores = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(limit) / int(period))))
    except (OSError, ValueError):  # no such limit: the file is missing or says "max"
        return cores
