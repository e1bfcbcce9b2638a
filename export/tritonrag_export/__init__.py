"""Prepare offline: the embedding model and the index."""
