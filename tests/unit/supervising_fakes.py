"""Processes and a Triton that a test makes up."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tritonrag.processes import Reading
from tritonrag.supervising.stubs import Stub, StubWatch


@dataclass
class Machine:
    """Stubs' processes; those in `working` want the CPU or a disk."""

    readings: dict[int, Reading] = field(default_factory=dict)
    stubs: list[Stub] = field(default_factory=list)
    working: set[int] = field(default_factory=set)

    def add(self, pid: int, model: str, instance: str = "0_0") -> Stub:
        stub = Stub(pid=pid, model=model, instance=f"{model}_{instance}", region=f"region-{pid}")
        self.stubs.append(stub)
        self.readings[pid] = Reading(state="S", cpu_s=0.0, began=pid)
        return stub

    def set(self, pid: int, **changes: object) -> None:
        self.readings[pid] = replace(self.readings[pid], **changes)  # type: ignore[arg-type]

    def watch(self) -> StubWatch:
        return StubWatch(
            1,
            find=lambda _: [stub for stub in self.stubs if stub.pid in self.readings],
            read=self.readings.get,
            works=self.working.__contains__,
        )


@dataclass
class ScriptedApi:
    """Answers the canary of a stage as `answers` says, with status 200 where it says nothing, and never where it is in `silent`.

    Loading and unloading fail with `failure`.
    """

    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    count_failure: Exception | None = None
    failure: Exception | None = None
    asked: list[str] = field(default_factory=list)
    controlled: list[tuple[str, str]] = field(default_factory=list)

    async def post(self, path: str, _body: Mapping[str, Any]) -> tuple[int, bytes]:
        stage = path.split("/")[3]
        self.asked.append(stage)
        if stage in self.silent:
            await asyncio.Event().wait()
        return self.answers.get(stage, (200, b"{}"))

    async def successes(self) -> dict[str, int]:
        if self.count_failure is not None:
            raise self.count_failure
        return dict(self.counts)

    async def is_ready(self, _model: str) -> bool:
        return True

    async def load(self, model: str) -> None:
        self._control("load", model)

    async def unload(self, model: str) -> None:
        self._control("unload", model)

    def _control(self, what: str, model: str) -> None:
        self.controlled.append((what, model))
        if self.failure is not None:
            raise self.failure
