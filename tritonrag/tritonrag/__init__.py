"""Operate: the tritonrag command."""
