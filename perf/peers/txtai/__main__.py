"""Serve: `python -m peers.txtai`. txtai's own API and application; our route is an extension of it, which is txtai's way."""

import json
import os
import tempfile
from pathlib import Path
from typing import Final

from peers.fastapi_app import serve
from peers.shared import Place, weights

_APP: Final = "peers.txtai.app:create"


def main() -> None:
    """Build txtai's index once, then serve it with a worker for each core."""
    from peers.txtai.index import build  # noqa: PLC0415 - so that what spawns the workers stays small

    place = Place.given()
    with tempfile.TemporaryDirectory(prefix="peer-txtai-") as folder:
        build(place.data, Path(folder) / "index")
        config = Path(folder) / "config.yml"
        embeddings = {"path": str(weights(place.data)), "gpu": False}
        config.write_text(json.dumps({"path": str(Path(folder) / "index"), "embeddings": embeddings}), encoding="utf-8")
        os.environ.update(CONFIG=str(config), EXTENSIONS="peers.txtai.app.Retrieve")
        serve(_APP)


if __name__ == "__main__":
    main()
