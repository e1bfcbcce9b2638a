"""Peers side by side: servers written with other libraries, over the same passages and vectors, under the same load as ours."""
