"""Copy a growing log to a stream, as `tail -f` does."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

_POLL_S = 0.2


class LogFollower:
    """A context manager; on the way out it copies what is left."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        self._path, self._stream = path, stream
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._copy, name="log-follower", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _copy(self) -> None:
        with self._path.open(errors="replace") as log:
            ended = False
            while not ended:
                ended = self._end.wait(_POLL_S)  # asked before the read, so that the last lines come too
                self._stream.write(log.read())
                self._stream.flush()
