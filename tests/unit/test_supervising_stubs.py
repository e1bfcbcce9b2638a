"""Stubs as processes: found by their command lines, watched by their readings."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest
from supervising_fakes import Machine
from tests.waiting import wait_until

from tritonrag.processes import exit_status, has_work, read_process
from tritonrag.supervising.stubs import Stub, StubWatch, stub_of

HOME = "/home/tritonrag-home-x"
SLEEP = shutil.which("sleep") or "/bin/sleep"


def command(model: str, instance: str, region: str = "tritonrag-home-x4") -> list[str]:
    program = f"{HOME}/backends/python/triton_python_backend_stub"
    file = f"{HOME}/models/{model}/1/model.py"
    return [program, file, region, "1048576", "1048576", "77", f"{HOME}/backends/python", "336", instance, "DEFAULT"]


def test_a_stub_is_known_by_its_command_line() -> None:
    assert stub_of(5, command("retrieve", "retrieve_0_1")) == Stub(
        pid=5, model="retrieve", instance="retrieve_0_1", region="tritonrag-home-x4"
    )


def test_a_stub_that_only_completes_a_configuration_is_none() -> None:
    assert stub_of(5, command("retrieve", "retrieve")) is None


@pytest.mark.parametrize("other", [[], [""], ["bash", "-c", "exec stub"], ["/usr/bin/tritonserver", "--x"] * 6])
def test_other_processes_are_none(other: list[str]) -> None:
    assert stub_of(5, other) is None


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.add(11, "retrieve", "0_0")
    machine.add(12, "retrieve", "0_1")
    machine.add(13, "generator")
    return machine


def conditions(watch: StubWatch, now_s: float) -> dict[int, str]:
    return {sight.stub.pid: sight.condition for sight in watch.look(now_s)}


def test_all_is_well(machine: Machine) -> None:
    watch = machine.watch()
    assert watch.models == {"retrieve", "generator"}
    assert conditions(watch, 0) == {}


def test_a_zombie_is_dead(machine: Machine) -> None:
    watch = machine.watch()
    machine.set(12, state="Z")
    assert conditions(watch, 0) == {12: "dead"}


def test_one_that_vanished_is_dead_and_so_is_one_whose_number_is_another_process_now(machine: Machine) -> None:
    watch = machine.watch()
    del machine.readings[12]
    machine.set(13, began=999)
    machine.stubs = [stub for stub in machine.stubs if stub.pid != 13]
    assert conditions(watch, 0) == {12: "dead", 13: "dead"}


def test_one_that_triton_replaced_is_not_dead(machine: Machine) -> None:
    watch = machine.watch()
    del machine.readings[12]
    machine.add(22, "retrieve", "0_1")
    assert conditions(watch, 0) == {}
    machine.set(22, state="Z")
    assert conditions(watch, 1) == {22: "dead"}


def test_one_that_is_stopped_for_a_while_is_told_and_one_that_goes_on_in_time_is_not(machine: Machine) -> None:
    watch = machine.watch()
    machine.set(13, state="T")
    assert conditions(watch, 0) == {}
    assert conditions(watch, 0.9) == {}
    machine.set(13, state="S")
    assert conditions(watch, 0.95) == {}
    machine.set(13, state="T")
    assert conditions(watch, 1.0) == {}
    assert conditions(watch, 2.0) == {13: "stopped"}


def test_a_model_is_idle_when_none_of_its_stubs_used_time_for_a_second(machine: Machine) -> None:
    watch = machine.watch()
    for tenth in range(10):
        watch.look(tenth / 10)
        assert not watch.is_idle("retrieve", tenth / 10), "not seen for long enough"
    watch.look(1.0)
    assert watch.is_idle("retrieve", 1.0)
    assert set(watch.idle_pids("retrieve", 1.0)) == {11, 12}
    machine.set(12, cpu_s=0.5)
    watch.look(1.1)
    assert not watch.is_idle("retrieve", 1.1)
    assert watch.idle_pids("retrieve", 1.1) == [11]
    for tenth in range(12, 25):
        watch.look(tenth / 10)
    assert watch.is_idle("retrieve", 2.4), "what it used long ago counts no more"


def test_one_that_waits_for_the_cpu_or_a_disk_is_not_idle(machine: Machine) -> None:
    watch = machine.watch()
    for tenth in range(11):
        watch.look(tenth / 10)
    machine.working.add(11)
    assert not watch.is_idle("retrieve", 1.0)


def test_a_model_without_stubs_is_never_idle(machine: Machine) -> None:
    assert not machine.watch().is_idle("encoder", 5.0)


def test_a_reloaded_model_is_watched_anew_and_what_its_dead_left_is_named_once(machine: Machine) -> None:
    watch = machine.watch()
    machine.set(12, state="Z")
    watch.retire("retrieve", 0)
    assert conditions(watch, 0) == {}, "whatever becomes of a retired one is as it should be"
    machine.stubs = [stub for stub in machine.stubs if stub.pid != 12]
    machine.add(21, "retrieve", "0_0")
    machine.add(22, "retrieve", "0_1")
    watch.find_anew()
    assert {stub.pid for stub in watch.of("retrieve")} == {21, 22}
    watch.end_retired(1, patience_s=60)
    assert watch.regions_to_sweep() == {"region-12"}, "11 still ends what it has begun"
    del machine.readings[11]
    watch.end_retired(2, patience_s=60)
    assert watch.regions_to_sweep() == {"region-11"}
    assert watch.regions_to_sweep() == set()


def test_only_those_that_live_and_are_not_stopped_are_healthy(machine: Machine) -> None:
    watch = machine.watch()
    machine.set(12, state="T")
    assert [stub.pid for stub in watch.healthy("retrieve")] == [11]
    machine.set(11, state="Z")
    assert watch.healthy("retrieve") == []


def test_those_that_hang_are_the_stopped_and_the_blamed_until_their_model_is_loaded_anew(machine: Machine) -> None:
    watch = machine.watch()
    machine.set(11, state="T")
    watch.look(0)
    assert watch.hung("retrieve") == []
    watch.look(1)
    assert watch.hung("retrieve") == [11]
    machine.set(11, state="S")
    watch.look(2)
    assert watch.hung("retrieve") == [11], "it is not trusted any more"
    assert [stub.pid for stub in watch.healthy("retrieve")] == [12]
    watch.blame([12])
    assert watch.hung("retrieve") == [11, 12]
    assert watch.healthy("retrieve") == []
    watch.retire("retrieve", 3)
    assert watch.hung("retrieve") == []


class TestARealProcess:
    @pytest.fixture
    def process(self) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen([SLEEP, "600"]) as process:
            yield process
            with suppress(ProcessLookupError):
                process.kill()

    def test_is_read(self, process: subprocess.Popen[bytes]) -> None:
        assert wait_until(lambda: _state(process.pid) == "S")
        assert not has_work(process.pid)
        process.send_signal(signal.SIGSTOP)
        assert wait_until(lambda: _state(process.pid) == "T")
        assert exit_status(process.pid) is None
        process.kill()
        assert wait_until(lambda: _state(process.pid) == "Z")
        assert exit_status(process.pid) == -signal.SIGKILL
        assert process.wait() == -signal.SIGKILL, "its status was read away"
        assert read_process(process.pid) is None

    def test_that_works_has_work(self) -> None:
        with subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) as busy:
            assert wait_until(lambda: has_work(busy.pid))
            busy.kill()

    def test_that_is_not_watched_is_never_ended(self, process: subprocess.Popen[bytes], machine: Machine) -> None:
        watch = machine.watch()
        watch.end([process.pid])
        assert process.poll() is None
        assert os.getpid() != process.pid


def _state(pid: int) -> str:
    reading = read_process(pid)
    return "" if reading is None else reading.state
