"""The other generators of this server: a `stop` reaches one instance by Triton's choice, its generation may run in another.

Each process has a datagram socket in the folder that they share (`run_dir`), and answers whether it had what should stop. It binds
its socket when it gets its first request: one that has none yet has nothing to stop, and is not asked. Sockets bear the
process's number, not the instance's: while Triton loads the model again, the old instance still has generations to end.
"""

import asyncio
import itertools
import logging
import os
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonrag_backends.generation.running import RunningGenerations, stop_key
from tritonrag_client.errors import NotFoundError, UnavailableError

ANSWER_S: Final = 1.0  # a peer answers between two steps of its event loop: within milliseconds, unless it hangs
_FULL_PAUSE_S: Final = 0.002  # until a peer's full queue is tried again; by default the kernel keeps 10 datagrams in it
_TOLD: Final = 80  # characters of an id, which may be of any length
_NAME: Final = re.compile(r"generator-(\d{1,9})\.sock")
_ASK: Final = b"?"
_ANSWER: Final = b"!"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """`number` is the asker's own of its question, `process` who sends this; `found` says something in an answer alone."""

    kind: bytes
    number: int
    process: int
    key: bytes
    found: bool = False


_LAYOUT: Final = struct.Struct("!cQI32s?")


def _pack(message: _Message) -> bytes:
    return _LAYOUT.pack(message.kind, message.number, message.process, message.key, message.found)


def _unpack(data: bytes) -> _Message:
    kind, number, process, key, found = _LAYOUT.unpack(data)
    return _Message(kind=kind, number=number, process=process, key=key, found=found)


class Peers:
    """A process among its peers. Lives in one event loop; made by `Peers.open`."""

    def __init__(self, ours: socket.socket, folder_fd: int, process: int, stop: Callable[[bytes], bool]) -> None:
        self._socket, self._folder_fd, self._process, self._stop = ours, folder_fd, process, stop
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._asked: dict[tuple[int, int], asyncio.Future[bool]] = {}  # by question and peer
        self._answers: set[asyncio.Task[None]] = set()
        self._loop.add_reader(ours, self._read)

    @classmethod
    def open(cls, folder: Path, process: int, stop: Callable[[bytes], bool]) -> "Peers":
        """Be found in `folder` from now on; `stop` is told the keys that peers send. Raises OSError where there can be no socket.

        `process` is the process's id. No other task runs meanwhile, so that nothing can start to generate before.
        """
        folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            _remove(folder_fd, process)  # of a process that is dead and had the same number
            ours.bind(_address(folder_fd, process))
            return cls(ours, folder_fd, process, stop)
        except BaseException:
            ours.close()
            os.close(folder_fd)
            raise

    async def stop(self, key: bytes) -> bool:
        """Have every peer stop what runs under `key`; whether one had it.

        Raises UnavailableError where none had it and one did not say: whether it runs is not known then.
        """
        number = next(self._numbers)
        replies = await asyncio.gather(*(self._ask(number, peer, key) for peer in self._peers()))
        if None in replies and True not in replies:
            raise UnavailableError(
                "an instance of the generator does not say whether it runs this generation; send the stop again"
            )
        return True in replies

    def close(self) -> None:
        """Be found no more; whoever waits for an answer from here goes without."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        _remove(self._folder_fd, self._process)
        self._socket.close()
        os.close(self._folder_fd)

    def _peers(self) -> list[int]:
        names = (_NAME.fullmatch(path.name) for path in Path(_path(self._folder_fd)).iterdir())
        return [peer for name in names if name is not None and (peer := int(name[1])) != self._process]

    async def _ask(self, number: int, peer: int, key: bytes) -> bool | None:
        """Whether the peer had it; None where it does not answer in time."""
        reply = self._asked[number, peer] = self._loop.create_future()
        try:
            async with asyncio.timeout(ANSWER_S):
                question = _Message(kind=_ASK, number=number, process=self._process, key=key)
                return await self._send(question, peer) and await reply
        except TimeoutError:
            _LOG.warning("the generator with process id %d does not answer within %g s", peer, ANSWER_S)
            return None
        finally:
            del self._asked[number, peer]

    async def _answer(self, question: _Message, *, found: bool) -> None:
        answer = _Message(kind=_ANSWER, number=question.number, process=self._process, key=question.key, found=found)
        with suppress(TimeoutError):  # whoever asked waits no longer
            async with asyncio.timeout(ANSWER_S):
                await self._send(answer, question.process)

    async def _send(self, message: _Message, peer: int) -> bool:
        """Put it into the peer's queue, as soon as that has room; false where the peer is no more: its socket is removed."""
        while self._socket.fileno() >= 0:
            try:
                self._socket.sendto(_pack(message), _address(self._folder_fd, peer))
            except BlockingIOError:
                await asyncio.sleep(_FULL_PAUSE_S)
            except (ConnectionRefusedError, FileNotFoundError):
                _remove(self._folder_fd, peer)
                return False
            else:
                return True
        return False

    def _read(self) -> None:
        """Called by the loop when something has come."""
        with suppress(BlockingIOError):
            while True:
                data = self._socket.recv(_LAYOUT.size + 1)
                if len(data) == _LAYOUT.size:
                    self._hear(_unpack(data))
                else:
                    _LOG.error("a message of %d bytes came that is not a generator's", len(data))

    def _hear(self, message: _Message) -> None:
        if message.kind == _ASK:
            task = self._loop.create_task(self._answer(message, found=self._stop(message.key)))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
        elif (reply := self._asked.get((message.number, message.process))) is not None and not reply.done():
            reply.set_result(message.found)


async def stop_everywhere(
    request_id: str, tenant: str | None, running: RunningGenerations, peers: Peers | None
) -> None:
    """End every generation of this server under this id and tenant; `peers` None: of this process.

    Raises BadRequestError without an id, NotFoundError where none runs, UnavailableError where none was found and a peer is silent.
    """
    key = stop_key(request_id, tenant)
    found = running.stop(key)
    if peers is not None:
        try:
            found |= await peers.stop(key)
        except UnavailableError:
            if not found:
                raise
    if not found:
        told = request_id if len(request_id) <= _TOLD else f"{request_id[:_TOLD]}..."
        raise NotFoundError(f"no generation runs under the request id {told!r}; it may have ended already")


def _remove(folder_fd: int, process: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_file_name(process), dir_fd=folder_fd)


def _address(folder_fd: int, process: int) -> str:
    return f"{_path(folder_fd)}/{_file_name(process)}"


def _path(folder_fd: int) -> str:
    """Short, whatever the folder's own: a socket's path may have 107 bytes, and TMPDIR alone may have more."""
    return f"/proc/self/fd/{folder_fd}"


def _file_name(process: int) -> str:
    return f"generator-{process}.sock"
