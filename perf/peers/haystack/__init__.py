"""Haystack's pipeline over its FAISS store, sentence-transformers fp32, behind FastAPI."""
