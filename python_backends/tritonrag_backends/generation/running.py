"""The generations that run now, so that a `stop` request finds the one it means."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tritonrag_client.errors import BadRequestError, NotFoundError


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """One running generation; `stopped` is set when somebody asked for its end."""

    stopped: asyncio.Event = field(default_factory=asyncio.Event)


class RunningGenerations:
    """Running generations by tenant and request id; lives in one event loop.

    A tenant's `stop` can't reach another tenant's generation. An id is the client's choice and may be in use twice: all that
    bear it are stopped.
    """

    def __init__(self) -> None:
        self._by_key: defaultdict[tuple[str | None, str], set[Generation]] = defaultdict(set)

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    @contextmanager
    def running(self, request_id: str, tenant: str | None) -> Iterator[Generation]:
        """Hold a generation in the list while it runs."""
        generation, key = Generation(), (tenant, request_id)
        self._by_key[key].add(generation)
        try:
            yield generation
        finally:
            self._by_key[key].discard(generation)
            if not self._by_key[key]:
                del self._by_key[key]

    def stop(self, request_id: str, tenant: str | None) -> None:
        """Ask a running generation to end. Raises BadRequestError without an id, NotFoundError where none runs under it."""
        if not request_id:
            raise BadRequestError("stop needs the id of the request whose generation should end; set the request id")
        generations = self._by_key.get((tenant, request_id))
        if not generations:
            raise NotFoundError(f"no generation runs under the request id {request_id!r}; it may have ended already")
        for generation in generations:
            generation.stopped.set()
