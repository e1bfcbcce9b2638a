"""A stage is asked by canaries: what answers is good, what works is slow however long it takes, and what does neither hangs."""

import asyncio
import json
from collections.abc import Callable, Sequence

import pytest
from supervising_fakes import Machine, ScriptedApi

from tritonrag.supervising.asking import Asking, look_at_stubs
from tritonrag.supervising.judge import Judge, Mend, Restart, Stage
from tritonrag.supervising.limits import WatchLimits
from tritonrag.supervising.metrics import SupervisorMetrics
from tritonrag.supervising.tasks import Tasks
from tritonrag_client.errors import UnavailableError

LIMITS = WatchLimits(interval_s=0.8, late_s=0.7, mend_s=8.0, leave_s=5.0)
RETRIEVER = Stage(name="retriever", runs=frozenset({"retriever"}))
PID = 11
TICKS_A_COUNT = 3  # of a tenth of a second


class Scene:
    """Stages, their processes and Triton's answers; time is what a test lets pass."""

    def __init__(self, *stages: Stage, pids: Sequence[tuple[int, str]] = ((PID, "retriever"),)) -> None:
        self.machine, self.api, self.tasks = Machine(), ScriptedApi(), Tasks()
        for number, (pid, model) in enumerate(pids):
            self.machine.add(pid, model, f"0_{number}")
        self.ticks, self.triton_works = 1000, False
        self.stubs = self.machine.watch()
        self.judge = Judge(stages, most_failed_starts=5)
        self.asking = Asking(
            stages,
            self.judge,
            LIMITS,
            api=self.api,
            stubs=self.stubs,
            tasks=self.tasks,
            metrics=SupervisorMetrics(),
            triton_works=lambda: self.triton_works,
            clock=lambda: self.now_s,
        )

    @property
    def now_s(self) -> float:
        return self.ticks / 10

    def state(self, stage: str = "retriever") -> str:
        return self.judge.states()[stage]

    async def let_pass(self, seconds: float, each_tick: Callable[[], None] = lambda: None) -> None:
        for _ in range(round(seconds * 10)):
            self.ticks += 1
            each_tick()
            if self.ticks % TICKS_A_COUNT == 0:
                await self.asking.count()
            look_at_stubs(self.stubs, self.judge, self.now_s)
            self.asking.look(self.now_s)
            await let_run()
            self.tasks.raise_failed()

    def complete(self, stage: str = "retriever", *, every: int = 1) -> None:
        """To be called each tick."""
        if self.ticks % every == 0:
            self.api.counts[stage] = self.api.counts.get(stage, 0) + 1

    def use_cpu(self, pid: int = PID) -> None:
        self.machine.set(pid, cpu_s=self.machine.readings[pid].cpu_s + 0.05)


async def let_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def scene() -> Scene:
    """One stage that has answered, and whose processes have been seen for long enough."""
    scene = Scene(RETRIEVER)
    await scene.let_pass(3)
    assert scene.state() == "good"
    return scene


async def test_a_stage_is_asked_again_and_again_while_it_answers(scene: Scene) -> None:
    asked = len(scene.api.asked)
    await scene.let_pass(8)
    assert len(scene.api.asked) >= asked + 8


async def test_a_stage_that_hangs_without_traffic_is_found(scene: Scene) -> None:
    scene.api.silent.add("retriever")
    await scene.let_pass(3)
    assert isinstance(scene.judge.decide(scene.now_s), Mend)
    assert scene.stubs.hung("retriever") == [PID]


@pytest.mark.parametrize("ticks_before", range(24))
async def test_a_stage_that_hangs_in_the_midst_of_traffic_is_found(scene: Scene, ticks_before: int) -> None:
    """Whatever it completed between the last count and the hang."""

    def serve() -> None:
        scene.complete()
        scene.use_cpu()

    await scene.let_pass(3 + ticks_before / 10, serve)
    scene.api.counts["retriever"] += 10
    scene.api.silent.add("retriever")
    await scene.let_pass(4)
    assert isinstance(scene.judge.decide(scene.now_s), Mend)


async def test_what_a_sibling_completes_last_does_not_hide_a_hang() -> None:
    scene = Scene(RETRIEVER, pids=[(PID, "retriever"), (12, "retriever")])
    await scene.let_pass(3)
    scene.api.silent.add("retriever")
    await scene.let_pass(3, lambda: scene.complete(every=2))
    assert scene.state() == "slow"
    await scene.let_pass(3)
    assert isinstance(scene.judge.decide(scene.now_s), Mend)


async def test_a_long_queue_is_slow_and_never_a_hang(scene: Scene) -> None:
    """Even where using the CPU does not show, as when a GPU works."""
    scene.api.silent.add("retriever")
    await scene.let_pass(100, lambda: scene.complete(every=6))
    assert scene.state() == "slow"
    assert scene.judge.decide(scene.now_s) is None


async def test_a_batch_that_takes_long_is_slow_and_never_a_hang(scene: Scene) -> None:
    scene.api.silent.add("retriever")
    await scene.let_pass(100, scene.use_cpu)
    assert scene.state() == "slow"


async def test_a_process_that_waits_for_the_cpu_or_a_disk_is_slow_and_never_a_hang(scene: Scene) -> None:
    scene.api.silent.add("retriever")
    scene.machine.working.add(PID)
    await scene.let_pass(100)
    assert scene.state() == "slow"


async def test_where_triton_works_a_stage_has_more_time_after_each_request_that_it_completes(scene: Scene) -> None:
    scene.api.silent.add("retriever")
    scene.triton_works = True
    await scene.let_pass(60, lambda: scene.complete(every=20))
    assert scene.state() == "slow"
    await scene.let_pass(6)
    assert scene.state() == "down"


async def test_where_triton_does_not_tell_its_counts_nothing_is_judged(scene: Scene) -> None:
    scene.api.silent.add("retriever")
    scene.api.count_failure = UnavailableError("Triton does not answer")
    await scene.let_pass(10)
    assert scene.state() == "good"
    assert scene.now_s - scene.asking.heard_s >= 9, "that is judged as Triton's silence"


async def test_what_another_stage_completes_is_no_sign_of_life() -> None:
    generator = Stage(name="generator", runs=frozenset({"generator"}))
    scene = Scene(RETRIEVER, generator, pids=[(PID, "retriever"), (12, "generator")])
    await scene.let_pass(3)
    scene.api.silent.add("retriever")
    await scene.let_pass(6, lambda: scene.complete("generator"))
    assert (scene.state("retriever"), scene.state("generator")) == ("down", "good")


async def test_a_time_in_which_nobody_looked_is_forgiven(scene: Scene) -> None:
    scene.api.silent.add("retriever")
    await scene.let_pass(0.5)
    scene.ticks += 100
    scene.asking.forgive(10.0, scene.now_s)
    scene.asking.look(scene.now_s)
    await scene.let_pass(0.3)
    assert scene.state() == "good"
    await scene.let_pass(4)
    assert scene.state() == "down"


async def test_a_canary_that_is_forgotten_is_not_waited_for(scene: Scene) -> None:
    scene.api.silent.add("retriever")
    await scene.let_pass(0.5)
    asked = len(scene.api.asked)
    scene.asking.forget("retriever")
    scene.api.silent.clear()
    await scene.let_pass(2)
    assert scene.state() == "good"
    assert len(scene.api.asked) > asked


async def test_an_answer_that_nobody_foresaw_ends_the_watch_loudly(scene: Scene) -> None:
    scene.api.answers["retriever"] = (500, None)  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        await scene.let_pass(2)


class TestAnEnsemble:
    @pytest.mark.parametrize("ticks_before", range(9))
    async def test_leaves_it_to_the_canary_of_its_part_to_tell_which_hangs(self, ticks_before: int) -> None:
        both = Stage(name="retrieve", runs=frozenset({"embedder", "retriever"}))
        embedder = Stage(name="embedder", runs=frozenset({"embedder"}))
        scene = Scene(embedder, RETRIEVER, both, pids=[(PID, "retriever"), (12, "embedder")])
        scene.asking._due_s["retrieve"] = scene.now_s + ticks_before / 10
        await scene.let_pass(3)
        scene.api.silent |= {"retriever", "retrieve"}
        actions = []
        await scene.let_pass(6, lambda: actions.append(scene.judge.decide(scene.now_s)))
        [first, *_] = [action for action in actions if action is not None]
        assert isinstance(first, Mend)
        assert first.model == "retriever"
        assert not scene.judge.wants_restart

    async def test_has_the_part_reloaded_whose_death_its_canary_met_first(self) -> None:
        scene = Scene(Stage(name="embedder", runs=frozenset({"tokenizer"})), pids=[(PID, "tokenizer")])
        await scene.let_pass(3)
        scene.machine.set(PID, state="Z")
        error = {"error": "in ensemble 'embedder', Stub process 'tokenizer_0_0' is not healthy."}
        scene.api.answers["embedder"] = (500, json.dumps(error).encode())
        scene.asking.forget("embedder")
        await scene.asking._ask("embedder")
        assert scene.judge.decide(scene.now_s) == Mend(
            model="tokenizer", reason=f"its process {PID} (tokenizer_0_0) died"
        )

    @pytest.fixture
    async def native(self) -> Scene:
        """The encoder runs in Triton's own process."""
        scene = Scene(Stage(name="embedder", runs=frozenset({"tokenizer", "encoder"})), pids=[(PID, "tokenizer")])
        await scene.let_pass(3)
        assert scene.state("embedder") == "good"
        scene.api.silent.add("embedder")
        return scene

    async def test_that_hangs_in_triton_itself_has_it_restarted(self, native: Scene) -> None:
        await native.let_pass(6)
        assert isinstance(native.judge.decide(native.now_s), Restart)

    async def test_is_slow_while_triton_works(self, native: Scene) -> None:
        native.triton_works = True
        await native.let_pass(100)
        assert native.state("embedder") == "slow"
