"""A model is loaded anew until it is served; Triton is restarted where it can't be, and only there."""

import asyncio
from pathlib import Path

import pytest
from supervising_fakes import Machine, ScriptedApi
from tests.unit.running import running_server
from tests.waiting import wait_until

from tritonrag.supervising import mending
from tritonrag.supervising.judge import Judge, Mend, Stage
from tritonrag.supervising.limits import WatchLimits
from tritonrag.supervising.mending import Mender
from tritonrag.supervising.reloading import seem_changed
from tritonrag_client.errors import InternalError

OWN = tuple(Stage(name=name, runs=frozenset({name})) for name in ("embedder", "retriever"))
BOTH = Stage(name="retrieve", runs=frozenset({"embedder", "retriever"}))
FAILS = b'{"error": "internal: the embedder failed on this request; the server\'s log tells why"}'
PIDS = {"embedder": (11, 12), "retriever": (13,)}


class Scene:
    """A judge that knows that the embedder is down, and who mends it."""

    def __init__(self, folder: Path, *stages: Stage, mend_s: float = 60.0) -> None:
        self.machine, self.api = Machine(), ScriptedApi()
        for model, pids in PIDS.items():
            for number, pid in enumerate(pids):
                self.machine.add(pid, model, f"0_{number}")
        self.judge = Judge(stages, most_failed_starts=5)
        for stage in stages:
            self.judge.answered(stage.name, "alive")
        self.judge.stub_down("embedder", "stub_died", "dead")
        self.models = folder / "models"
        running = running_server(log_path=folder / "log", models=("retrieve",), models_dir=self.models)
        self.mender = Mender(
            running,
            stages,
            self.judge,
            WatchLimits(interval_s=0.8, late_s=0.7, mend_s=mend_s, leave_s=5.0),
            api=self.api,  # type: ignore[arg-type]
            stubs=self.machine.watch(),
            has_gpus=False,
        )

    def make_version(self) -> Path:
        source, version = self.models.parent / "source", self.models / "embedder" / "1"
        source.mkdir()
        (source / "model.py").write_text("one")
        (source / "other.py").write_text("two")
        version.parent.mkdir(parents=True)
        version.symlink_to(source)
        return version

    async def mend(self) -> None:
        self.judge.mending("embedder")
        await self.mender.mend("embedder")

    def told(self) -> str:
        """What /health tells."""
        return " ".join(one.reason for one in self.judge.degraded())


async def test_a_model_with_a_healthy_process_is_loaded_beside_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, *OWN)
    scene.make_version()
    scene.machine.set(11, state="Z")
    load = scene.api.load

    async def loading(model: str) -> None:
        await load(model)
        scene.machine.add(21, "embedder", "0_0")

    scene.api.load = loading  # type: ignore[method-assign]
    await scene.mend()
    assert scene.api.controlled == [("load", "embedder")]
    assert scene.judge.is_ready


async def test_one_whose_folder_can_not_be_changed_is_unloaded_and_loaded(tmp_path: Path) -> None:
    scene = Scene(tmp_path, *OWN)
    await scene.mend()
    assert scene.api.controlled == [("unload", "embedder"), ("load", "embedder")]
    assert scene.judge.is_ready


async def test_a_disk_that_is_full_is_a_restart_and_no_end(tmp_path: Path) -> None:
    scene = Scene(tmp_path, *OWN)
    scene.api.failure = OSError(28, "No space left on device", "/home/somebody/file")
    await scene.mend()
    assert scene.judge.wants_restart
    assert "No space left on device" in scene.told()
    assert "/home" not in scene.told()


async def test_what_triton_says_of_a_failure_is_told_in_the_event_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path, *OWN)
    scene.api.failure = InternalError("Triton does not load it: ValueError: no\n\nAt:\n  /home/somebody/model.py(4)")
    await scene.mend()
    assert scene.judge.wants_restart
    assert "/home" not in scene.told()
    assert any("/home/somebody/model.py(4)" in one.reason for one in scene.judge.happenings())


async def test_one_that_does_not_come_back_in_time_is_a_restart(tmp_path: Path) -> None:
    scene = Scene(tmp_path, *OWN, mend_s=0.1)
    scene.api.silent.add("embedder")
    await scene.mend()
    assert scene.judge.wants_restart


async def test_one_that_answers_with_errors_is_failing_and_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mending, "_FAILING_S", 0.1)
    scene = Scene(tmp_path, *OWN)
    scene.api.answers["embedder"] = (500, FAILS)
    await scene.mend()
    assert scene.judge.states()["embedder"] == "failing"
    assert not scene.judge.is_ready
    assert scene.judge.decide(100.0) is None
    assert scene.judge.repairs == 1


async def test_a_stage_with_another_part_down_is_not_waited_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path, *OWN, BOTH)
    scene.api.silent.add("retrieve")
    scene.judge.stub_down("retriever", "stub_died", "dead")
    await scene.mend()
    assert scene.judge.states()["embedder"] == "good"
    assert scene.judge.decide(100.0) == Mend(model="retriever", reason="dead")


async def test_nor_is_one_of_which_a_part_goes_down_meanwhile(tmp_path: Path) -> None:
    scene = Scene(tmp_path, *OWN, BOTH)
    scene.api.silent.add("retrieve")
    mend = asyncio.ensure_future(scene.mend())
    assert await asyncio.to_thread(wait_until, lambda: "retrieve" in scene.api.asked)
    assert not mend.done()
    scene.judge.stub_down("retriever", "stub_hung", "stopped")
    await mend
    assert scene.judge.decide(100.0) == Mend(model="retriever", reason="stopped")


def test_a_folder_seems_changed_by_being_one_of_links(tmp_path: Path) -> None:
    version = Scene(tmp_path, *OWN).make_version()
    for _ in range(2):
        before = version.lstat().st_ino
        seem_changed(version.parent)
        assert [entry.name for entry in version.parent.iterdir()] == ["1"]
        assert {part.name: part.read_text() for part in version.iterdir()} == {"model.py": "one", "other.py": "two"}
        assert version.lstat().st_ino != before


def test_a_folder_that_can_not_be_changed_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, link = Scene(tmp_path, *OWN).make_version(), Path.symlink_to

    def link_once(self: Path, target: str) -> None:
        if any(self.parent.iterdir()):
            raise OSError(28, "No space left on device")
        link(self, target)

    monkeypatch.setattr(Path, "symlink_to", link_once)
    with pytest.raises(OSError, match="No space left"):
        seem_changed(version.parent)
    assert [entry.name for entry in version.parent.iterdir()] == ["1"]
    assert (version / "other.py").read_text() == "two"
