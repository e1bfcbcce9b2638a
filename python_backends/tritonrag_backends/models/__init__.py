"""The TritonPythonModel classes: tensors in, an inner call, tensors out."""

import os

# Threads of FAISS that wait must sleep, not spin: the embedder works on the same cores. libgomp reads this when FAISS is imported,
# hence the place. Measured with two FAISS threads on two cores, 32 clients of `retrieve`, medians of 3 rounds, spinning and
# sleeping: 7k passages, flat, 378 and 476 questions/s dense, 164 and 405 hybrid; 97k, hnsw, 394 and 504, 294 and 363.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
