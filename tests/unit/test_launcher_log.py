"""What Triton's log says about a start that failed becomes one error for a person, without traceback."""

import os
from pathlib import Path

import pytest

from tritonrag.triton_log import failure, port_was_taken, read_log
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError, RagError

LOG = Path("/somewhere/triton.log")


def load_failure(reason: str, model: str = "retriever") -> str:
    trace = r"\n\nAt:\n  /home/someone/model.py(4): initialize\n"
    return (
        'E1122 12:00:56.906617 6583 server.cc:241] "CudaDriverHelper has not been initialized."\n'
        f'I1122 12:00:57.019831 6583 pb_stub.cc:366] "Failed to initialize Python stub: {reason}{trace}"\n'
        f'E1122 12:00:57.282421 6583 backend_model.cc:692] "ERROR: Failed to create instance: {reason}{trace}"\n'
        f"E1122 12:00:57.282583 6583 model_lifecycle.cc:642] \"failed to load '{model}' version 1: Internal: {reason}{trace}\"\n"
    )


def explain(log: str, status: int | None = 1) -> RagError:
    return failure(log, log_path=LOG, exit_status=status)


@pytest.mark.parametrize("before", ["TritonModelException: ", "NotFoundError: ", "a.b.NotFoundError: ", ""])
def test_an_error_of_ours_keeps_its_type_and_text_whatever_python_put_before_it(before: str) -> None:
    error = explain(load_failure(f"{before}not_found: the index directory /x is missing; build one"))
    assert isinstance(error, NotFoundError)
    assert error.message == f"the index directory /x is missing; build one (log: {LOG})"


def test_an_error_of_ours_wins_over_the_failures_that_follow_from_it() -> None:
    log = load_failure("ValueError: something", "embedder") + load_failure(
        "bad_request: threads is 0; use 1", "retriever"
    )
    assert isinstance(explain(log), BadRequestError)


def test_any_other_exception_is_told_with_its_model_and_without_traceback() -> None:
    error = explain(load_failure(r"ValueError: first\nsecond"))
    assert isinstance(error, InternalError)
    assert error.message == f"the model retriever did not load: ValueError: first second (log: {LOG})"


def test_where_no_model_is_to_blame_tritons_last_errors_are_told_and_its_noise_is_not() -> None:
    log = (
        'E1122 12:00:56.906617 6583 server.cc:241] "CudaDriverHelper has not been initialized."\n'
        "error: creating server: Internal - failed to stat file /nowhere\n"
    )
    message = explain(log).message
    assert (
        "ended with status 1 before it was ready: creating server: Internal - failed to stat file /nowhere" in message
    )
    assert "Cuda" not in message


def test_a_triton_that_never_gets_ready_is_told_as_such() -> None:
    assert explain("", None).message == f"Triton is still not ready (log: {LOG})"


def test_a_lost_port_is_known_from_the_log() -> None:
    assert port_was_taken(
        "E1122 1 main.cc:1] \"failed to start HTTP service: Unavailable - Socket '127.0.0.1:1' already in use \""
    )
    assert not port_was_taken(load_failure("ValueError: x"))


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert read_log(tmp_path / "none") == ""


def test_of_a_long_log_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("first\n" + "ü" * 2**20 + "\nlast\n")
    read = read_log(log)
    assert read.endswith("ü\nlast\n")
    assert len(read) < 2**20


@pytest.mark.timeout(30)
def test_a_log_that_can_not_be_read_again_is_empty(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pipe.open("r+b", buffering=0) as written:
        written.write(b"said\n")
        assert read_log(pipe) == ""


def test_a_service_that_did_not_start_for_another_reason_lost_no_port() -> None:
    assert not port_was_taken('E1122 1 main.cc:1] "failed to start GRPC service: Internal - could not read the key"')


def test_tls_files_that_triton_can_not_use_are_told_as_such_and_not_as_a_port() -> None:
    error = explain(
        "E1129 22:11:38.255276069     969 ssl_transport_security.cc:780]        Invalid private key.\n"
        "E1129 22:11:38.255344360     969 ssl_security_connector.cc:271]        "
        "Handshaker factory creation failed with TSI_INVALID_ARGUMENT.\n"
        "E1129 22:11:38.259257 969 main.cc:245] \"failed to start GRPC service: Unavailable - Socket 'x:1' already in use \"\n"
    )
    assert isinstance(error, BadRequestError)
    assert error.message.endswith(f"--tls-key and --tls-client-ca: Invalid private key. (log: {LOG})")
