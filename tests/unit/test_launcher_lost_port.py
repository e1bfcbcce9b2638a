"""A start that lost its port is made again; one that Triton's TLS is to blame for is not, though Triton says the same of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.test_launcher_command import make_triton

from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.tls import ServerTls
from tritonrag.triton_command import ServeOptions
from tritonrag_client.errors import RagError, UnavailableError

SAYS = "failed to start GRPC service: Unavailable - Socket '127.0.0.1:1' already in use"
TLS = ServerTls(certificate=Path("/cert.pem"), key=Path("/key.pem"))


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServeOptions:
    """A Triton that can't have its port, and notes each start."""
    monkeypatch.setattr(ServerTls, "check", lambda _: None)
    folder, repository = make_triton(tmp_path / "triton"), tmp_path / "repository"
    repository.mkdir()
    program = folder / "bin/tritonserver"
    program.write_text(f'#!/bin/sh\necho started >>{tmp_path}/starts\necho "error: {SAYS}"\nexit 1\n')
    program.chmod(0o700)
    return ServeOptions(triton_dir=folder, model_repository=repository, models=(), log_file=tmp_path / "triton.log")


def starts(options: ServeOptions, tmp_path: Path) -> tuple[RagError, int]:
    with TritonServer() as server, pytest.raises(RagError) as caught:
        server.start(options)
    return caught.value, len((tmp_path / "starts").read_text().split())


def test_a_free_port_that_was_lost_is_chosen_anew_three_times(options: ServeOptions, tmp_path: Path) -> None:
    error, count = starts(options, tmp_path)
    assert isinstance(error, UnavailableError)
    assert "a free port was taken" in error.message
    assert count == 3


def test_also_over_tls_where_somebody_has_it(
    options: ServeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunningServer, "taken_ports", lambda running: [running.grpc_port])
    assert starts(replace(options, tls=TLS), tmp_path)[1] == 3


def test_over_tls_with_a_port_that_is_free_it_is_told_what_triton_said(options: ServeOptions, tmp_path: Path) -> None:
    error, count = starts(replace(options, tls=TLS), tmp_path)
    assert SAYS in error.message
    assert count == 1
