"""Place: what of index, embedding model and language model fits on which hardware, by arithmetic alone."""
