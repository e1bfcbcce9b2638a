"""The worker. A module of its own: mosec spawns its workers, which find the class by its module's name."""

from typing import Any

import orjson
from mosec import Worker

from peers.encoder import Encoder
from peers.shared import Place, Store


class Retriever(Worker):  # type: ignore[misc]
    """A worker for each core; mosec hands it the requests that are waiting, together."""

    def __init__(self) -> None:
        place = Place.given()
        self._encoder, self._store = Encoder(place.data), Store.open(place.data)

    def deserialize(self, data: bytes) -> Any:  # noqa: ANN401 - what JSON holds
        """A request's body."""
        return orjson.loads(data)

    def serialize(self, data: bytes) -> bytes:
        """It is JSON already."""
        return data

    def forward(self, data: Any) -> Any:  # noqa: ANN401 - mosec's: one and its answer where batches are of 1, else lists
        """The answers to a batch."""
        if not isinstance(data, list):
            return self.forward([data])[0]
        vectors = self._encoder.encode([asked["question"] for asked in data])
        return self._store.search(vectors, [asked["k"] for asked in data])
