"""What may be chosen of an index and of an engine, by name; without loading NumPy and FAISS."""

from typing import Literal

Kind = Literal["flat", "sq8", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"]
KindChoice = Literal["auto", "flat", "sq8", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"]
VectorType = Literal["fp32", "fp16", "int8"]
Reduction = Literal["none", "pca", "truncate"]
EngineName = Literal["extractive", "onnxruntime_genai", "openai", "tensorrt_llm"]
