"""Documents: read from files or from the running Python, and cut into passages."""
