"""The `onnxruntime_genai` engine: a small language model from a local folder, in a process of its own."""
