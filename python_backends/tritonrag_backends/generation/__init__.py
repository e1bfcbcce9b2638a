"""Writing the answer: one protocol, several engines; plain Python, no Triton."""
