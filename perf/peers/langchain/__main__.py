"""Serve: `python -m peers.langchain`."""

import json

import torch
from fastapi import FastAPI
from langchain_community.docstore.in_memory import InMemoryDocstore
from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from langchain_core.documents import Document
from langchain_huggingface import HuggingFaceEmbeddings

from peers.fastapi_app import application, serve
from peers.shared import Place, Store, answer_of_json, weights


def store_of(place: Place) -> FAISS:
    """LangChain's store around the same FAISS index."""
    store = Store.open(place.data)
    documents = {
        str(id_): Document(id=str(id_), page_content=(passage := json.loads(line)).pop("text"), metadata=passage)
        for id_, line in zip(store.ids, store.passages, strict=True)
    }
    return FAISS(
        embedding_function=HuggingFaceEmbeddings(
            model_name=str(weights(place.data)),
            model_kwargs={"device": "cpu"},
            encode_kwargs={"normalize_embeddings": True},
        ),
        index=store.index,
        docstore=InMemoryDocstore(documents),
        index_to_docstore_id=dict(enumerate(documents)),
        distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT,
    )


def create() -> FastAPI:
    """The app of one worker."""
    torch.set_num_threads(1)
    store = store_of(Place.given())

    def retrieve(question: str, k: int) -> bytes:
        found = store.similarity_search_with_score(question, k=k)
        return answer_of_json(
            (int(document.id), score, {"text": document.page_content, **document.metadata}) for document, score in found
        )

    return application(retrieve)


if __name__ == "__main__":
    serve("peers.langchain.__main__:create")
