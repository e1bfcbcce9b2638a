"""Read out of Triton's log why it did not start."""

import os
import re
from pathlib import Path

from tritonrag_client.errors import ERROR_TYPES, BadRequestError, InternalError, RagError, parse_error

# As 2.51.0 writes it (one line, with \n spelled out):
# E1122 12:00:57.2 6583 model_lifecycle.cc:642] "failed to load 'm' version 1: Internal: ValueError: why\n\nAt:\n  path(4): f\n"
_LOAD_FAILURE = re.compile(r"\] \"?failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.*?)\"?$", re.MULTILINE)
_ERROR_LINE = re.compile(r"^E\d{4} \S+ \d+ \S+\] \"?(?P<text>.*?)\"?$|^error: (?P<fatal>.*)$", re.MULTILINE)
_BEFORE_CODE = re.compile(rf"^(?:\w[\w .]*: )*?(?=(?:{'|'.join(ERROR_TYPES)}): )")
_PORT_TAKEN = re.compile(r"already in use", re.IGNORECASE)
# gRPC's words for TLS files that it can't use. Triton's own are then that the port is "already in use".
_TLS_FAULT = re.compile(r"ssl_transport_security\.cc:\d+\]\s+(?P<reason>.*)\n.*Handshaker factory creation failed")
# What 2.51.0 logs as an error on every machine without a GPU.
_NOISE = ("CudaDriverHelper has not been initialized", "CUDA driver version is insufficient")
_LAST_LINES = 3
_END_BYTES = 2**20


def read_log(path: Path) -> str:
    """The end of the log's text, a megabyte at most; "" where there is none yet, and where it is no file to read again."""
    if not path.is_file():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _END_BYTES))
        return log.read(_END_BYTES).decode(errors="replace")


def port_was_taken(log: str) -> bool:
    """Whether Triton says that somebody else listens on one of its ports, as it also does of TLS files that it can't use."""
    return _PORT_TAKEN.search(log) is not None


def failure(log: str, *, log_path: Path, exit_status: int | None, was_ready: bool = False) -> RagError:
    """The error for a person: a model's own coded message as it stands, without traceback, else Triton's last words.

    `exit_status` None means that Triton still ran when we gave up on it. The log's path stands in every message. What a server
    that `was_ready` had logged before says nothing of its end, but for its last words.
    """
    found = () if was_ready else _LOAD_FAILURE.finditer(log)
    reasons = {match["model"]: _plain(match["reason"]) for match in found}
    for reason in reasons.values():
        coded = parse_error(_BEFORE_CODE.sub("", reason))
        if coded is not None:
            return type(coded)(f"{coded.message} (log: {log_path})")
    if reasons:
        texts = "; ".join(f"the model {model} did not load: {reason}" for model, reason in reasons.items())
        return InternalError(f"{texts} (log: {log_path})")
    if not was_ready and (fault := _TLS_FAULT.search(log)):
        return BadRequestError(
            f"Triton can't use the files of --tls-cert, --tls-key and --tls-client-ca: {fault['reason']} (log: {log_path})"
        )
    end = "is still not ready" if exit_status is None else f"ended with status {exit_status}"
    end += "" if was_ready or exit_status is None else " before it was ready"
    last = "; ".join(_error_lines(log)[-_LAST_LINES:])
    return InternalError(f"Triton {end}{': ' + last if last else ''} (log: {log_path})")


def _plain(reason: str) -> str:
    """A model's exception without Triton's status, the pybind traceback ("At:" and paths) and escaped line ends."""
    text = reason.replace("\\n", "\n").split("\n\nAt:\n")[0]
    return " ".join(re.sub(r"^(?:Internal|Invalid argument|Unavailable|Unknown): ", "", text).split())


def _error_lines(log: str) -> list[str]:
    texts = [(match["text"] or match["fatal"] or "").strip() for match in _ERROR_LINE.finditer(log)]
    return [_plain(text) for text in texts if text and not any(noise in text for noise in _NOISE)]
