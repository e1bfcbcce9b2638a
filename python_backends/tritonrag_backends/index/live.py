"""The live version of an index, followed while it is served: a new one is opened beside the old and takes its place between two
batches.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tritonrag_backends.index.gpu.placing import Placing
from tritonrag_backends.index.search import Index
from tritonrag_backends.index.store import read_current, read_current_name
from tritonrag_backends.index.watching import FileWatch
from tritonrag_client.errors import RagError

_LOG = logging.getLogger(__name__)

# A version that can't be opened may be large, and checking it takes a core: after a failure it is left alone for this many times
# as long as the try took, so that trying again takes at most about a tenth of a core.
_REST: Final = 10
# How long `close` waits for a version that is just being opened.
_CLOSE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadEvent:
    """CURRENT changed. `index` is what is served from now on: the new version, or, where there is an `error`, the old one.

    `repeated`: the same error was told before and nothing has changed since.
    `damage`: CURRENT did not change, but files of what is served did; why its answers may be wrong, "" where that is not so.
    """

    index: Index
    error: Exception | None = None
    repeated: bool = False
    damage: str = ""


class LiveIndex:
    """Follows CURRENT. Whoever answers a batch reads `current` once, so that the batch is of one version.

    A version is taken up whichever way its number goes: a rollback makes it smaller.
    """

    def __init__(
        self,
        *,
        read_name: Callable[[], str],
        open_index: Callable[[Index | None], Index],
        poll_s: float,
        on_reload: Callable[[ReloadEvent], None],
        settle: Callable[[Index], Index] = lambda index: index,
        damage: Callable[[Index], str] = lambda _: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the live version. `open_index` takes an older version, of which it may reuse what has not changed.

        `settle` is given a version once the one before is gone, and returns the same version, which may use what that held.
        `damage` is asked at each look what happened to the files of the version that is served.
        """
        self._read_name, self._open_index, self._poll_s, self._on_reload = read_name, open_index, poll_s, on_reload
        self._settle, self._damage, self._clock = settle, damage, clock
        self._name, self.current = self._open_live(None)
        damage(self.current)
        self._doubted = False
        self._retired: Index | None = None
        self._told: set[str] = set()
        self._failed_name, self._rests_until_s = "", 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="live-index", daemon=True)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        fingerprint: str | None,
        embedder_name: str | None,
        poll_s: float,
        on_reload: Callable[[ReloadEvent], None],
        placing: Placing | None = None,
    ) -> Self:
        """Open the live version of the index at `directory`; raises as `Index.open`. `follow` begins to look for others.

        `on_reload` is called on the thread that looks, every `poll_s` seconds, at CURRENT. `placing` brings each version onto
        devices, on that thread too.
        """
        watch = FileWatch(directory)

        def open_index(old: Index | None) -> Index:
            watch.expect(read_current(directory))
            return Index.open(
                directory, fingerprint=fingerprint, embedder_name=embedder_name, reuse=old, placing=placing
            )

        return cls(
            read_name=lambda: read_current_name(directory),
            open_index=open_index,
            poll_s=poll_s,
            on_reload=on_reload,
            settle=lambda index: index if placing is None else index.placed_again(placing),
            damage=lambda index: watch.look(index.manifest),
        )

    def follow(self) -> None:
        """Begin to follow CURRENT, on a thread of its own, until `close`."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; `current` stays open."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def look(self) -> None:
        """Look at CURRENT once, and where it changed take up the version that it names.

        Where that fails, the old version goes on being served, and the next look tries again. Raises what `on_reload` raises.
        """
        started_s, name = self._clock(), ""
        settles, self._retired = self._retired is not None, None
        self._doubt(self._damage(self.current))
        # What was changed under the old version is not taken over: then all of the new one is held to its sha256.
        reused = None if self._doubted else self.current
        try:
            name = self._read_name()
            if name == self._name:
                self._told.clear()
                if settles:
                    self.current = self._settle(self.current)
                return
            if name == self._failed_name and started_s < self._rests_until_s:
                return
            name, opened = self._open_live(reused)
        except Exception as error:  # noqa: BLE001 - a server's loop: what nobody foresaw is told and must not end it
            self._fail(name, error, started_s)
            return
        self._doubt(self._damage(self.current))
        if reused is not None and self._doubted:  # it was changed while it was taken over
            return
        self._take_up(name, opened)

    def _follow(self) -> None:
        while not self._closing.wait(self._poll_s):
            try:
                self.look()
            except Exception:  # noqa: BLE001 - as above
                _LOG.exception("what was found at a look at the index could not be told")

    def _open_live(self, old: Index | None) -> tuple[str, Index]:
        """The live version and its name in CURRENT."""
        while True:
            name = self._read_name()
            try:
                return name, self._open_index(old)
            except RagError:
                # The files of a version that has been replaced in the meantime may be gone; the newer one's are there.
                if self._read_name() == name:
                    raise

    def _take_up(self, name: str, opened: Index) -> None:
        # The name was read first, so CURRENT may have changed before its version was opened; then the next look finds the same
        # version under its own name.
        old, self._name = self.current, name
        if opened.manifest == old.manifest:
            return
        # A batch may still search the old version. It is kept until the next look, so that its files are unmapped here.
        self.current, self._retired, self._doubted = opened, old, False
        self._told.clear()
        self._damage(opened)
        self._on_reload(ReloadEvent(index=opened))

    def _doubt(self, damage: str) -> None:
        """Go on serving what may be wrong, since there is nothing else, but say so with every answer."""
        if damage and damage not in self.current.degraded:
            self._doubted = True
            self.current = self.current.doubted(damage)
            self._on_reload(ReloadEvent(index=self.current, damage=damage))

    def _fail(self, name: str, error: Exception, started_s: float) -> None:
        ended_s = self._clock()
        self._failed_name, self._rests_until_s = name, ended_s + _REST * (ended_s - started_s)
        cause = f"{name} {error!r}"
        repeated = cause in self._told
        self._told.add(cause)
        self._on_reload(ReloadEvent(index=self.current, error=error, repeated=repeated))
