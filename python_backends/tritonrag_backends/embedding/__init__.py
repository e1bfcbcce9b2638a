"""Text to unit vectors: the folder format, packing, tokenising and the encoder."""
