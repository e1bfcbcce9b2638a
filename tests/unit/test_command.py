"""The command: fast to ask for help, clear when something is wrong, silent about what no user can act on."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tritonrag import cli
from tritonrag.commands.serve import ServeRequest
from tritonrag.settings import settings_from
from tritonrag_client.errors import BadRequestError, InternalError, RagError, UnavailableError

Capture = pytest.CaptureFixture[str]
COMMANDS = (
    "index build",
    "export embedder",
    "serve",
    "health",
    "ask",
    "search",
    "doctor",
    "demo",
    "bench",
    "bench prompt-reuse",
    "plan",
)


pytestmark = pytest.mark.usefixtures("nothing_set")


def run(arguments: str | list[str], capsys: Capture) -> tuple[int, str, str]:
    status = cli.run_command(arguments.split() if isinstance(arguments, str) else arguments)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: Capture) -> None:
    status, out, _ = run(f"{command} --help", capsys)
    assert status == 0
    assert f"tritonrag {command}" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_has_an_environment_variable(
    command: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = run(f"{command} --help", capsys)
    options = [line for line in out.splitlines() if "--" in line and "--help" not in line]
    assert out.count("env var: TRITONRAG_") == len(options)


def test_asking_for_help_loads_nothing_heavy() -> None:
    program = "import sys, tritonrag.cli; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"numpy", "grpc", "faiss", "onnxruntime", "pydantic_settings", "tokenizers"}


@pytest.mark.parametrize(
    ("raised", "status"),
    [(BadRequestError("a is 1; use 2"), 2), (UnavailableError("no server; start one"), 1), (InternalError("sorry"), 1)],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_status(
    raised: RagError, status: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise raised

    monkeypatch.setattr("tritonrag.commands.serve.run", fail)
    assert run("serve", capsys) == (status, "", f"tritonrag: {raised.code}: {raised.message}\n")


def test_ctrl_c_is_exit_status_130(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tritonrag.commands.serve.run", interrupt)
    assert run("serve", capsys)[0] == 130


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("serve --http-port x", "--http-port"),
        ("serve --grpc-port 65536", "--grpc-port"),
        ("index build --corpus nix", "--corpus"),
        ("ask", "question"),
    ],
)
def test_a_wrong_option_is_named(arguments: str, named: str, capsys: Capture) -> None:
    status, _, err = run(arguments, capsys)
    assert status == 2
    assert named in err


def test_nothing_to_index_is_told_with_the_way_out(capsys: Capture) -> None:
    status, _, err = run("index build", capsys)
    assert status == 2
    assert "--corpus pydoc" in err


def test_a_path_that_is_not_there_is_named_before_anything_is_loaded(capsys: Capture) -> None:
    status, _, err = run("index build nowhere.md", capsys)
    assert status == 2
    assert "nowhere.md" in err


def test_serving_without_an_embedding_model_names_the_folder_and_the_command(capsys: Capture) -> None:
    status, out, err = run("serve --embedder some/where", capsys)
    assert (status, out) == (2, "")
    assert "some/where" in err
    assert "tritonrag export embedder" in err


@pytest.mark.parametrize("command", ["ask", "search"])
def test_no_server_is_told_with_how_to_start_one(command: str, capsys: Capture, free_port: int) -> None:
    status, out, err = run([command, "why?", "--url", f"127.0.0.1:{free_port}"], capsys)
    assert (status, out) == (1, "")
    assert f"127.0.0.1:{free_port}" in err
    assert "tritonrag serve" in err


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_a_filter_that_is_no_json_object_is_told_before_the_server_is_asked(text: str, capsys: Capture) -> None:
    status, _, err = run(["search", "why?", "--filter", text], capsys)
    assert status == 2
    assert "--filter" in err


@pytest.mark.parametrize("host", ["192.0.2.1", "::"])
def test_a_host_that_others_can_reach_demands_an_explicit_word(host: str) -> None:
    with pytest.raises(BadRequestError, match="--allow-non-loopback"):
        ServeRequest(host=host).serve_options()
    assert ServeRequest(host=host, allow_non_loopback=True).serve_options().host == host


def test_an_option_counts_over_its_variable_and_a_variable_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONRAG_EMBEDDER_MODEL", "from/variable")
    monkeypatch.setenv("TRITONRAG_INDEX", "from/variable")
    settings = settings_from(index=Path("from/option"))
    assert settings.index == Path("from/option")
    assert settings.embedder.model == Path("from/variable")


def test_a_misspelt_variable_is_refused_with_the_one_that_was_meant(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong, meant in (("TRITONRAG_INDX", "TRITONRAG_INDEX"), ("TRITONRAG_HTTP_PROT", "TRITONRAG_HTTP_PORT")):
        monkeypatch.setenv(wrong, "3")
        status, _, err = run("doctor", capsys)
        assert status == 2
        assert f"{wrong} is not one of ours" in err
        assert f"did you mean {meant}?" in err
        monkeypatch.delenv(wrong)


def test_variables_of_options_of_settings_and_of_kubernetes_are_no_misspelling(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "TRITONRAG_URL": "127.0.0.1:1",
        "TRITONRAG_RETRIEVER_THREADS": "1",
        "TRITONRAG_SERVICE_HOST": "10.0.0.1",
        "TRITONRAG_SERVICE_PORT_GRPC": "8001",
        "TRITONRAG_PORT": "tcp://10.0.0.1:8001",
        "TRITONRAG_PORT_8001_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    assert "not one of ours" not in run("index build nowhere.md", capsys)[2]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--url localhost", "'localhost'"),
        ("--url localhost:99999", "HOST:PORT"),
        ("--timeout-s 0", "--timeout-s is 0"),
        ("--timeout-s nan", "--timeout-s is nan"),
    ],
)
def test_an_option_that_can_not_be_is_told_before_a_server_is_sought(options: str, named: str, capsys: Capture) -> None:
    status, _, err = run(["ask", "why?", *options.split()], capsys)
    assert status == 2
    assert named in err


def test_a_full_disk_behind_stdout_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tritonrag.commands.doctor.run", full)
    status, _, err = run("doctor", capsys)
    assert status == 1
    assert err.splitlines() == ["tritonrag: internal: [Errno 28] No space left on device"]


def test_an_unknown_engine_is_told_with_those_there_are(capsys: Capture) -> None:
    status, _, err = run("serve --engine oracle", capsys)
    assert status == 2
    assert "oracle" in err
    assert "extractive" in err


def test_the_doctor_speaks_json_and_ends_well_on_a_machine_that_can_serve(capsys: Capture) -> None:
    status, out, _ = run("doctor --json", capsys)
    report = json.loads(out)
    assert report["ok"] is (status == 0)
    assert {"Python", "Triton", "stub", "embedder", "index"} <= {check["name"] for check in report["checks"]}


def test_the_doctor_fails_where_a_check_fails(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonrag.machine_checks.available_bytes", lambda: 0)
    status, out, _ = run("doctor", capsys)
    assert status == 1
    assert "fail  memory" in out


@pytest.fixture
def free_port(unused_tcp_port_factory: Callable[[], int]) -> int:
    return unused_tcp_port_factory()
