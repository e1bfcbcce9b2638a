"""Serve: `python -m peers.fastapi_st`."""

import torch
from fastapi import FastAPI
from sentence_transformers import SentenceTransformer

from peers.fastapi_app import application, serve
from peers.shared import Place, Store, weights


def create() -> FastAPI:
    """The app of one worker."""
    torch.set_num_threads(1)
    place = Place.given()
    model, store = SentenceTransformer(str(weights(place.data)), device="cpu"), Store.open(place.data)

    def retrieve(question: str, k: int) -> bytes:
        vectors = model.encode([question], normalize_embeddings=True, show_progress_bar=False)
        (answer,) = store.search(vectors, [k])
        return answer

    return application(retrieve)


if __name__ == "__main__":
    serve("peers.fastapi_st.__main__:create")
