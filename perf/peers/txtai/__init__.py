"""txtai's API over its FAISS index, sentence-transformers fp32."""
