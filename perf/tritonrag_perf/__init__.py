"""Measure: perf_analyzer sweeps and their record (`python -m tritonrag_perf.sweep`)."""
