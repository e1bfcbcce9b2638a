"""A steady load while something is broken: what `python -m tritonrag_perf.faults` measures with, and the tests check with.

references = take_references(url)
with Load(url, references) as load:
    ...break something, wait for what should come...
assert load.tally.faults() == []
"""

from tritonrag_perf.faults_load import (
    GRACE_S,
    KINDS,
    QUESTIONS,
    Kind,
    Load,
    Outcome,
    References,
    Tally,
    take_references,
)

__all__ = ["GRACE_S", "KINDS", "QUESTIONS", "Kind", "Load", "Outcome", "References", "Tally", "take_references"]
