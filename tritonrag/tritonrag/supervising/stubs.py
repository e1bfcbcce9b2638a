"""Triton's Python stubs as processes: which there are, which of them are dead or stopped, and whether they work."""

import os
import re
import signal
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from tritonrag.processes import Reading, command_of, has_work, read_process, session_members

_PROGRAM: Final = "triton_python_backend_stub"
# As 2.51.0 starts it: program, model.py, shared memory, two sizes, parent's pid, backend's folder, handle, instance, kind.
_MODEL_FILE, _REGION, _INSTANCE = 1, 2, 8
_STOPPED_S: Final = 1.0  # a shorter stop is somebody looking at the process
_WINDOW_S: Final = 1.0  # over which CPU time is counted
_IDLE_CPU_S: Final = 0.03  # in a window: what the threads that follow an index and the parent's life use is below

Condition = Literal["well", "stopped", "dead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """A process that runs one instance of a model; `region` is its shared memory."""

    pid: int
    model: str
    instance: str
    region: str


def stub_of(pid: int, command: list[str]) -> Stub | None:
    """The stub that a command line is of; None for what is none, such as one that only completes a configuration."""
    if len(command) <= _INSTANCE or Path(command[0]).name != _PROGRAM:
        return None
    model = Path(command[_MODEL_FILE]).parts[-3]
    instance = command[_INSTANCE]
    if not re.fullmatch(rf"{re.escape(model)}_\d+(_\d+)?", instance):
        return None
    return Stub(pid=pid, model=model, instance=instance, region=command[_REGION].lstrip("/"))


def find_stubs(session_id: int) -> list[Stub]:
    """The living stubs of the Triton that leads a session."""
    found = (stub_of(process.pid, command_of(process.pid)) for process in session_members(session_id))
    return [stub for stub in found if stub is not None]


@dataclass(slots=True)
class _Watched:
    stub: Stub
    began: int
    cpu_s: deque[tuple[float, float]] = field(default_factory=deque)  # when, CPU seconds so far
    stopped_since_s: float | None = None
    retired_s: float | None = None  # since when its model is being, or has been, loaded anew without it
    is_hung: bool = False  # for good: it is ended when its model is loaded anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A stub that is not well, and since when it is stopped."""

    stub: Stub
    condition: Condition


class StubWatch:
    """The stubs of one Triton. Times are of the caller's clock, in seconds."""

    def __init__(
        self,
        session_id: int,
        *,
        find: Callable[[int], list[Stub]] = find_stubs,
        read: Callable[[int], Reading | None] = read_process,
        works: Callable[[int], bool] = has_work,
    ) -> None:
        self._session_id, self._find, self._read, self._works = session_id, find, read, works
        self._watched: dict[int, _Watched] = {}
        self._regions_of_dead: set[str] = set()
        self.find_anew()

    @property
    def models(self) -> frozenset[str]:
        """Which have stubs."""
        return frozenset(one.stub.model for one in self._active())

    def of(self, model: str) -> list[Stub]:
        """The stubs of a model that are watched."""
        return [one.stub for one in self._active(model)]

    def healthy(self, model: str) -> list[Stub]:
        """Those of them that live, and are neither stopped nor hung."""
        readings = ((one, self._read(one.stub.pid)) for one in self._active(model) if not one.is_hung)
        return [
            one.stub
            for one, reading in readings
            if reading is not None and reading.began == one.began and not (reading.is_dead or reading.is_stopped)
        ]

    def hung(self, model: str) -> list[int]:
        """The processes of those that were seen stopped for a while, or blamed."""
        return [one.stub.pid for one in self._active(model) if one.is_hung]

    def blame(self, pids: Iterable[int]) -> None:
        """These hang, by what is known from elsewhere."""
        for pid in pids:
            self._watched[pid].is_hung = True

    def find_anew(self) -> None:
        """Look which stubs there are: at first, and after a model was loaded."""
        for stub in self._find(self._session_id):
            reading = self._read(stub.pid)
            if stub.pid not in self._watched and reading is not None and not reading.is_dead:
                self._watched[stub.pid] = _Watched(stub=stub, began=reading.began)

    def retire(self, model: str, now_s: float) -> None:
        """The model is about to be loaded anew: whatever becomes of these stubs of it from now on is as it should be.

        Triton ends them when their last request is done; but with a request that failed on a dead one, it never does (2.51.0).
        """
        for one in self._active(model):
            one.retired_s = now_s

    def end_retired(self, now_s: float, *, patience_s: float) -> None:
        """SIGKILL the stubs that were retired so long ago, and forget those that are dead."""
        for pid, one in list(self._watched.items()):
            if one.retired_s is None:
                continue
            if self._condition(one, now_s) in {"dead", "gone"}:
                self._forget(pid)
            elif now_s - one.retired_s > patience_s:
                self.end([pid])

    def look(self, now_s: float) -> list[Sight]:
        """Read every process once; those that are dead or have been stopped for a while."""
        conditions = {one.stub.pid: self._condition(one, now_s) for one in self._active()}
        if any(condition == "gone" for condition in conditions.values()):
            self._drop_replaced([pid for pid, condition in conditions.items() if condition == "gone"])
        self.blame(pid for pid, condition in conditions.items() if condition == "stopped")
        return [
            Sight(stub=self._watched[pid].stub, condition="stopped" if condition == "stopped" else "dead")
            for pid, condition in conditions.items()
            if condition != "well" and pid in self._watched
        ]

    def is_idle(self, model: str, now_s: float) -> bool:
        """Whether none of a model's stubs did or wanted to do anything for a while; false where that is not known yet."""
        watched = self._active(model)
        return bool(watched) and not any(self._was_busy(one, now_s) for one in watched)

    def idle_pids(self, model: str, now_s: float) -> list[int]:
        """Those of its stubs that did nothing for a while."""
        return [one.stub.pid for one in self._active(model) if not self._was_busy(one, now_s)]

    def end(self, pids: Iterable[int]) -> None:
        """SIGKILL those of them that are still the stubs which are watched; one that is stopped takes it too."""
        for pid in pids:
            reading, one = self._read(pid), self._watched.get(pid)
            if reading is not None and one is not None and reading.began == one.began:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def regions_to_sweep(self) -> set[str]:
        """The shared memory of stubs that are dead and that no living one has; each is named once."""
        regions = self._regions_of_dead - {one.stub.region for one in self._watched.values()}
        self._regions_of_dead.clear()
        return regions

    def _condition(self, one: _Watched, now_s: float) -> Literal["well", "stopped", "dead", "gone"]:
        reading = self._read(one.stub.pid)
        if reading is None or reading.began != one.began:
            return "gone"
        if reading.is_dead:
            return "dead"
        one.cpu_s.append((now_s, reading.cpu_s))
        while len(one.cpu_s) > 1 and one.cpu_s[1][0] <= now_s - _WINDOW_S:
            one.cpu_s.popleft()
        if not reading.is_stopped:
            one.stopped_since_s = None
            return "well"
        one.stopped_since_s = now_s if one.stopped_since_s is None else one.stopped_since_s
        return "stopped" if now_s - one.stopped_since_s >= _STOPPED_S else "well"

    def _was_busy(self, one: _Watched, now_s: float) -> bool:
        if not one.cpu_s or now_s - one.cpu_s[0][0] < _WINDOW_S:
            return True  # it has not been seen for long enough
        return one.cpu_s[-1][1] - one.cpu_s[0][1] > _IDLE_CPU_S or self._works(one.stub.pid)

    def _active(self, model: str | None = None) -> list[_Watched]:
        """Those that are not retired; None: of every model."""
        return [one for one in self._watched.values() if one.retired_s is None and model in {None, one.stub.model}]

    def _drop_replaced(self, gone: list[int]) -> None:
        """Those that Triton itself has ended and replaced are not dead: somebody has loaded the model again."""
        self.find_anew()
        living = {(one.stub.model, one.stub.instance) for one in self._active() if one.stub.pid not in gone}
        for pid in gone:
            stub = self._watched[pid].stub
            if (stub.model, stub.instance) in living:
                self._forget(pid)

    def _forget(self, pid: int) -> None:
        self._regions_of_dead.add(self._watched.pop(pid).stub.region)
