"""Serve: `python -m peers.fastapi_ort`."""

from fastapi import FastAPI

from peers.encoder import Encoder
from peers.fastapi_app import application, serve
from peers.shared import Place, Store


def create() -> FastAPI:
    """The app of one worker."""
    place = Place.given()
    encoder, store = Encoder(place.data), Store.open(place.data)

    def retrieve(question: str, k: int) -> bytes:
        (answer,) = store.search(encoder.encode([question]), [k])
        return answer

    return application(retrieve)


if __name__ == "__main__":
    serve("peers.fastapi_ort.__main__:create")
