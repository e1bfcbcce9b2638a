"""The worker process: holds the model, runs it, and talks to the generator over a socket.

    python -m tritonrag_backends.generation.genai.worker FD PARENT

A process of its own because the library's Generator holds Python's lock while it works (3.7 s for a prompt of 1,000 tokens), and
because a crash of native code would take the generator model with it, which Triton never restarts. It ends with its parent:
at the end of file of its socket, or killed by the kernel where it can't read that because it works.
"""

import ctypes
import logging
import os
import select
import signal
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from tritonrag_backends.generation.genai.folder import ModelFolder
from tritonrag_backends.generation.genai.format import adapter_file
from tritonrag_backends.generation.genai.scheduling import Scheduler
from tritonrag_backends.generation.genai.wire import Cancel, Failed, Frames, Job, Ready, Setup, WireMessage, to_frame
from tritonrag_client.errors import InternalError, RagError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
_LOG = logging.getLogger(__name__)
_READ_BYTES: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1


class Inbox:
    """Messages from the generator."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._frames = connection, Frames()
        self._poll = select.poll()  # select() takes no descriptor above 1023, and this has its number in the generator
        self._poll.register(connection, select.POLLIN)

    def read(self, *, wait: bool) -> "list[WireMessage] | None":
        """What has come, after waiting for something if told to; None when the generator is gone."""
        messages: list[WireMessage] = []
        while wait or self._poll.poll(0):
            data = self._connection.recv(_READ_BYTES)
            if not data:
                return None
            messages += self._frames.feed(data)
            wait = wait and not messages
        return messages


def main(arguments: "Sequence[str]") -> None:
    """Load the model that the first message names, then serve until the generator is gone."""
    connection_fd, parent = map(int, arguments)
    _end_with_parent(parent)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    with socket.socket(fileno=connection_fd) as connection:
        inbox = Inbox(connection)
        try:
            first = inbox.read(wait=True)
            if first is None:
                return
            serve(connection, inbox, first)
        except (BrokenPipeError, ConnectionResetError):
            return


def serve(connection: socket.socket, inbox: Inbox, first: "list[WireMessage]") -> None:
    """Answer the Setup at the head of `first`, then run jobs to the end of file."""
    setup = first[0]
    if not isinstance(setup, Setup):
        raise TypeError(f"the first message is {type(setup).__name__}, not Setup")
    try:
        scheduler, ready = load(setup)
    except RagError as error:
        connection.sendall(to_frame(Failed(code=error.code, message=error.message)))
        return
    connection.sendall(to_frame(ready))
    messages: list[WireMessage] | None = first[1:]
    while messages is not None:
        for message in messages:
            _take(scheduler, message)
        step = scheduler.step()
        if step:
            connection.sendall(to_frame(step))
        messages = inbox.read(wait=not scheduler.busy)


def load(setup: Setup) -> tuple[Scheduler, Ready]:
    """The model behind a scheduler.

    Raises UnavailableError (no library, no device) or InternalError (the library refuses the model).
    """
    folder = ModelFolder.read(Path(setup.model), verify=False)  # the generator has looked
    og = _library()
    if setup.execution == "cuda" and not og.is_cuda_available():
        raise UnavailableError(
            "TRITONRAG_GENAI_EXECUTION is 'cuda', and this onnxruntime-genai can't use CUDA;"
            " pip install onnxruntime-genai-cuda on a machine with a GPU, or set it to cpu"
        )
    try:
        return _open(og, setup, folder)
    except RuntimeError as error:
        raise InternalError(
            f"onnxruntime-genai {og.__version__} can't load the language model in {folder.path}: {error};"
            " export it again with this version: tritonrag export generator"
        ) from error


def _open(og: ModuleType, setup: Setup, folder: ModelFolder) -> tuple[Scheduler, Ready]:
    from tritonrag_backends.generation.genai import lanes  # noqa: PLC0415 - needs the library

    batch = None if folder.dynamic else setup.batch
    model = lanes.load_model(str(folder.path), execution=setup.execution, threads=setup.threads, static_batch=batch)
    adapters = og.Adapters(model)
    names = [] if folder.dynamic else list(folder.adapters)  # a paged graph runs in an Engine alone, which takes none
    for name in names:
        adapters.load(str(folder.path / adapter_file(name)), name)
    if folder.dynamic:
        places = max(og.Engine(model).get_capabilities().configured_max_batch_size, 1)
        opened = [lanes.EngineLane(model, places=places, static=False)]
    else:
        opened = [lanes.EngineLane(model, places=setup.batch, static=True) for _ in range(setup.lanes)]
        places = setup.batch * setup.lanes
    scheduler = Scheduler(opened, lambda job: lanes.SingleRun(model, adapters, job, folder.eos_ids), setup.lanes)
    return scheduler, Ready(slots=places, adapters=names)


def _library() -> ModuleType:
    try:
        import onnxruntime_genai as og  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UnavailableError(
            f"the onnxruntime_genai engine needs its library ({error}); pip install 'tritonrag[genai]'"
        ) from error
    og.disable_telemetry_events()
    return og  # type: ignore[no-any-return]  # it ships no types


def _take(scheduler: Scheduler, message: WireMessage) -> None:
    match message:
        case Job():
            scheduler.submit(message)
        case Cancel():
            scheduler.cancel(message.id)
        case _:
            _LOG.error("a message that is not for the worker: %s", type(message).__name__)


def _end_with_parent(parent: int) -> None:
    """Ctrl-C and a service manager's SIGTERM reach the whole group; when the worker ends is the generator's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it went before the kernel was told
        sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
