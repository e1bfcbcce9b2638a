"""The generations that run now, so that a `stop` request finds the one it means."""

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tritonrag_client.errors import BadRequestError


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """One running generation; `stopped` is set when somebody asked for its end."""

    stopped: asyncio.Event = field(default_factory=asyncio.Event)


def stop_key(request_id: str, tenant: str | None) -> bytes:
    """The 32 bytes by which a generation is found: no tenant has those of another. Raises BadRequestError without an id."""
    if not request_id:
        raise BadRequestError("stop needs the id of the request whose generation should end; set the request id")
    return _key(request_id, tenant)


class RunningGenerations:
    """Running generations by tenant and request id; lives in one event loop.

    An id is the client's choice and may be in use twice: all that bear it are stopped.
    """

    def __init__(self) -> None:
        self._by_key: defaultdict[bytes, set[Generation]] = defaultdict(set)

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    @contextmanager
    def running(self, request_id: str, tenant: str | None) -> Iterator[Generation]:
        """Hold a generation in the list while it runs."""
        generation, key = Generation(), _key(request_id, tenant)
        self._by_key[key].add(generation)
        try:
            yield generation
        finally:
            self._by_key[key].discard(generation)
            if not self._by_key[key]:
                del self._by_key[key]

    def stop(self, key: bytes) -> bool:
        """Ask the generations under this key to end; false where none runs."""
        generations = self._by_key.get(key, ())
        for generation in generations:
            generation.stopped.set()
        return bool(generations)


def _key(request_id: str, tenant: str | None) -> bytes:
    """A digest: a client's id may be of any length, and a message to another process may not (`peers`)."""
    return hashlib.sha256(json.dumps([tenant, request_id]).encode()).digest()
