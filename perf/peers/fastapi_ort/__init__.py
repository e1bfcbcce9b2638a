"""FastAPI and uvicorn, ONNX Runtime int8, FAISS."""
