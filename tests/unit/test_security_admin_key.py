"""The key to Triton's restricted APIs: random, in no text, and gone from the command line that it had to stand on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.running import running_server

from tritonrag import admin_key
from tritonrag.admin_key import ADMIN_HEADER, RESTRICTED_APIS, AdminKey, closed_apis, has_taken_its_arguments
from tritonrag_client.errors import BadRequestError

WAITS = "import sys; print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def key() -> AdminKey:
    return AdminKey()


@pytest.fixture
def child(key: AdminKey) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has the key among its arguments, twice, as Triton has."""
    arguments = [sys.executable, "-c", WAITS, "--before=1", *key.arguments(()), "--after=2"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_every_key_is_another_one_and_stands_in_no_text(key: AdminKey) -> None:
    assert key.value != AdminKey().value
    assert len(key.value) >= 43  # 256 bits
    running = running_server(admin_headers=key.headers)
    assert not any(key.value in text for text in (repr(key), str(key), repr(running), str(running)))
    assert running.admin_headers == {ADMIN_HEADER: key.value}


def test_both_protocols_are_restricted_with_every_api(key: AdminKey) -> None:
    flags = key.arguments(())
    assert len(flags) == 2
    for flag, name in zip(flags, ("tritonrag-admin", ADMIN_HEADER), strict=True):
        closed, _, opener = flag.partition("=")[2].partition(":")
        assert closed.split(",") == list(RESTRICTED_APIS)
        assert opener == f"{name}={key.value}"


def test_an_open_api_is_open_on_both_and_the_others_stay_closed(key: AdminKey) -> None:
    for flag in key.arguments(("statistics", "model-config")):
        assert "statistics" not in flag
        assert "model-config" not in flag
        assert "model-repository,shared-memory,trace,logging:" in flag
    assert key.arguments(RESTRICTED_APIS) == []


def test_an_api_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadRequestError, match=r"--open-api is 'stats'.*statistics"):
        closed_apis(("stats",))


def test_it_goes_from_the_command_line_and_nothing_else_does(key: AdminKey, child: "subprocess.Popen[bytes]") -> None:
    before = command_line(child.pid)
    assert before.count(key.value.encode()) == 2
    assert key.hide(child.pid)
    assert command_line(child.pid) == before.replace(key.value.encode(), b"*" * len(key.value))
    assert key.hide(child.pid), "a second time finds nothing to do"


def test_a_process_that_has_ended_has_nothing_to_hide(
    key: AdminKey, child: "subprocess.Popen[bytes]", caplog: pytest.LogCaptureFixture
) -> None:
    child.communicate()
    assert key.hide(child.pid)
    assert caplog.messages == []


def test_where_the_kernel_forbids_it_that_is_told_without_the_key(
    key: AdminKey,
    child: "subprocess.Popen[bytes]",
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def forbidden(_: Path) -> tuple[int, int]:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(admin_key, "_argument_range", forbidden)
    assert not key.hide(child.pid)
    (message,) = caplog.messages
    assert "Operation not permitted" in message
    assert str(child.pid) in message
    assert key.value not in message


@pytest.mark.parametrize(
    ("log", "taken"),
    [
        (None, False),
        ("", False),
        ("Warning: something before\n", False),
        ('I1129 17:00:00.1 7 pinned_memory_manager.cc:277] "Pinned memory pool is created"\n', True),
    ],
)
def test_what_triton_logs_tells_that_its_command_line_was_read(tmp_path: Path, log: str | None, taken: bool) -> None:
    path = tmp_path / "triton.log"
    if log is not None:
        path.write_text(log)
    assert has_taken_its_arguments(path) is taken


@pytest.mark.timeout(30)
def test_a_log_that_can_not_be_read_again_tells_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pipe.open("r+b", buffering=0) as written:
        written.write(b'I1129 17:00:00.1 7 pinned_memory_manager.cc:277] "Pinned memory pool is created"\n')
        assert not has_taken_its_arguments(pipe)


def test_triton_has_taken_its_arguments_however_much_it_logs_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text('I1129 17:00:00.1 7 pinned_memory_manager.cc:277] "created"\n' + "a model's own words\n" * 2**17)
    assert has_taken_its_arguments(path)
