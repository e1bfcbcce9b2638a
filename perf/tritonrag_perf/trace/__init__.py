"""The RAGPulse trace: read, replayed against a server, and what of its prompts a KV cache can use again."""
