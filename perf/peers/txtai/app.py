"""One worker of txtai's API."""

import faiss
import torch
from fastapi import FastAPI, Response
from txtai.api import Extension, application

from peers.fastapi_app import Asked
from peers.shared import Place, Store, answer


class Retrieve(Extension):  # type: ignore[misc]
    """The route that all peers have, on top of txtai's search."""

    def __call__(self, app: FastAPI) -> None:
        """Add it."""
        store = Store.open(Place.given().data)
        passages = dict(zip(store.ids.tolist(), store.passages, strict=True))

        @app.post("/retrieve")
        async def _(asked: Asked) -> Response:
            found = application.get().search(asked.question, asked.k)
            ids, scores = [int(one["id"]) for one in found], [float(one["score"]) for one in found]
            return Response(answer(ids, scores, [passages[id_] for id_ in ids]), media_type="application/json")


def create() -> FastAPI:
    """The app, whose start-up loads the index."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    app: FastAPI = application.create()
    return app
