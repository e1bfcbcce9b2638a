"""Serve: `python -m peers.mosec_ort`."""

import os
import sys
from typing import Final

from mosec import Runtime, Server

from peers.mosec_ort.worker import Retriever
from peers.shared import Place

_BATCH: Final = int(os.environ.get("PEER_BATCH", "32"))
_WAIT_MS: Final = int(os.environ.get("PEER_WAIT_MS", "1"))

if __name__ == "__main__":
    place = Place.given()
    sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", str(place.port), "--log-level", "warning"]
    server = Server()
    server.register_runtime(
        {"/retrieve": [Runtime(Retriever, num=place.cores, max_batch_size=_BATCH, max_wait_time=_WAIT_MS)]}
    )
    server.run()
