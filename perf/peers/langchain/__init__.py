"""LangChain's retriever over its FAISS store, sentence-transformers fp32, behind FastAPI."""
