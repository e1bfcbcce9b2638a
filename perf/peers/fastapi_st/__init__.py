"""FastAPI and uvicorn, sentence-transformers fp32, FAISS."""
