"""Serve: `python -m peers.ray_serve`."""

import asyncio
import os
import signal
import tempfile
from typing import Final

import orjson
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from peers.encoder import Encoder
from peers.shared import Place, Store

_BATCH: Final = int(os.environ.get("PEER_BATCH", "32"))
_WAIT_MS: Final = int(os.environ.get("PEER_WAIT_MS", "1"))
_AT_ONCE: Final = 256  # requests that may wait in one replica


class Retriever:
    """A replica for each core."""

    def __init__(self) -> None:
        place = Place.given()
        self._encoder, self._store = Encoder(place.data), Store.open(place.data)

    @serve.batch(max_batch_size=_BATCH, batch_wait_timeout_s=_WAIT_MS / 1000)  # type: ignore[untyped-decorator]
    async def retrieve(self, asked: list[tuple[str, int]]) -> list[bytes]:
        """The answers to the requests that are waiting."""
        return self._store.search(self._encoder.encode([text for text, _ in asked]), [k for _, k in asked])

    async def __call__(self, request: Request) -> Response:
        """One request."""
        asked = orjson.loads(await request.body())
        return Response(await self.retrieve((asked["question"], asked["k"])), media_type="application/json")


async def main(folder: str) -> None:
    """Serve until SIGTERM, with Ray's own files in `folder`."""
    place = Place.given()
    own = {"CONFIG_FILE_LOC": "haproxy.cfg", "SOCKET_PATH": "admin.sock", "METRICS_SOCKET_PATH": "metrics.sock"}
    own |= {"SERVER_STATE_BASE": "", "SERVER_STATE_FILE": "server-state"}
    # For the processes that Ray starts, where they serve through HAProxy.
    os.environ.update({f"RAY_SERVE_HAPROXY_{name}": f"{folder}/{file}".rstrip("/") for name, file in own.items()})
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    # Replicas count as half a core, so that there is room for them beside the proxy.
    ray.init(num_cpus=place.cores, include_dashboard=False, configure_logging=False, _temp_dir=folder)
    serve.start(http_options={"host": "127.0.0.1", "port": place.port})
    deployment = serve.deployment(
        num_replicas=place.cores, max_ongoing_requests=_AT_ONCE, ray_actor_options={"num_cpus": 0.5}
    )(Retriever)
    serve.run(deployment.bind(), route_prefix="/retrieve")
    await stopped.wait()
    ray.shutdown()


if __name__ == "__main__":
    # Short: what Ray makes in it are sockets, whose paths are at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as made:
        asyncio.run(main(made))
