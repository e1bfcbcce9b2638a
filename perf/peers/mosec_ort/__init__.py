"""mosec with dynamic batching, ONNX Runtime int8, FAISS."""
