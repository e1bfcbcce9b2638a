"""Serve: the inner library of the stages and the Triton models around it."""
