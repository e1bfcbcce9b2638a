"""txtai's index of vectors that are there already."""

import json
from pathlib import Path

import faiss
import numpy as np
from txtai.embeddings import Embeddings

from peers.shared import weights


def build(data: Path, output: Path) -> None:
    """Write it: made of arrays, and set to embed questions with the fp32 weights. Passages are not in it, but looked up by id."""
    ids, vectors = np.load(data / "ids.npy"), np.load(data / "vectors.npy")
    options = json.loads((data / "peer.json").read_text(encoding="utf-8"))
    components = "IDMap,Flat" if options["kind"] == "flat" else "IDMap,HNSW32,Flat"
    embeddings = Embeddings(
        {"method": "external", "content": False, "backend": "faiss", "faiss": {"components": components}}
    )
    embeddings.index((int(id_), vector, None) for id_, vector in zip(ids, vectors, strict=True))
    if options["ef_search"]:  # FAISS keeps it in the file
        faiss.ParameterSpace().set_index_parameter(embeddings.ann.backend, "efSearch", options["ef_search"])
    embeddings.config.update(method="transformers", path=str(weights(data)), gpu=False)
    embeddings.save(str(output))
