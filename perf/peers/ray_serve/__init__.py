"""Ray Serve with its batching, ONNX Runtime int8, FAISS."""
