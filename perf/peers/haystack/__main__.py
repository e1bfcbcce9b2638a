"""Serve: `python -m peers.haystack`."""

import json

import torch
from fastapi import FastAPI
from haystack import Document, Pipeline
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder
from haystack_integrations.components.retrievers.faiss import FAISSEmbeddingRetriever
from haystack_integrations.document_stores.faiss import FAISSDocumentStore

from peers.fastapi_app import application, serve
from peers.shared import Place, Store, answer_of_json, weights


def store_of(place: Place) -> FAISSDocumentStore:
    """Haystack's store around the same FAISS index; one that it builds itself has Euclidean distance, and re-scaled scores."""
    store = Store.open(place.data)
    theirs = FAISSDocumentStore(embedding_dim=store.index.d)
    theirs.index, theirs.index_string = store.index, "inner product"
    for row, (id_, line) in enumerate(zip(store.ids, store.passages, strict=True)):
        passage = json.loads(line)
        theirs.documents[str(id_)] = Document(id=str(id_), content=passage.pop("text"), meta=passage)
        theirs.id_map[row] = str(id_)
    return theirs


def pipeline_of(place: Place) -> Pipeline:
    """Embed, then search."""
    pipeline = Pipeline()
    embedder = SentenceTransformersTextEmbedder(
        model=str(weights(place.data)), normalize_embeddings=True, progress_bar=False
    )
    pipeline.add_component("embedder", embedder)
    pipeline.add_component("retriever", FAISSEmbeddingRetriever(document_store=store_of(place)))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    return pipeline


def create() -> FastAPI:
    """The app of one worker."""
    torch.set_num_threads(1)
    pipeline = pipeline_of(Place.given())

    def retrieve(question: str, k: int) -> bytes:
        found = pipeline.run({"embedder": {"text": question}, "retriever": {"top_k": k}})["retriever"]["documents"]
        return answer_of_json((int(one.id), one.score, {"text": one.content, **one.meta}) for one in found)

    return application(retrieve)


if __name__ == "__main__":
    serve("peers.haystack.__main__:create")
