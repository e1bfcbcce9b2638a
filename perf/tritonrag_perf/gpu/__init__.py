"""Measuring on a GPU, on a machine that one has for half an hour: `perf/gpu.sh`, or `python -m tritonrag_perf.gpu`.

Each part is a program of its own with a time limit, so that what crashes or hangs takes no other with it. Everything runs on a CPU
too (`--device cpu --scale tiny`), which is how the tests run it; figures of such a run say nothing, and no page is written of them.
"""
