"""The HTTP side of the peers on FastAPI: one route, the handler inline, a worker for each core.

By default the handler computes on the event loop: the work takes all of the worker's core either way, and a thread pool would add
a hop and a second thread to it. PEER_WORKERS (the cores) and PEER_THREADS (0: on the event loop) try it otherwise.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from peers.shared import Place


class Asked(BaseModel):
    """The body of a request."""

    question: str
    k: int = 10


def application(retrieve: Callable[[str, int], bytes]) -> FastAPI:
    """The app around a function from question and number of passages to the JSON of the answer."""
    app = FastAPI(openapi_url=None)

    threads = int(os.environ.get("PEER_THREADS", "0"))
    pool = ThreadPoolExecutor(threads) if threads else None

    @app.post("/retrieve")
    async def _(asked: Asked) -> Response:
        if pool is None:
            body = retrieve(asked.question, asked.k)
        else:
            body = await asyncio.get_running_loop().run_in_executor(pool, retrieve, asked.question, asked.k)
        return Response(body, media_type="application/json")

    return app


def serve(factory: str) -> None:
    """Run uvicorn with a worker for each core; `factory` is "module:function", called in each worker."""
    place = Place.given()
    # uvicorn's workers are spawned, and import by path what was importable here.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    uvicorn.run(
        factory,
        factory=True,
        host="127.0.0.1",
        port=place.port,
        workers=int(os.environ.get("PEER_WORKERS", place.cores)),
        access_log=False,
        log_level="warning",
    )
