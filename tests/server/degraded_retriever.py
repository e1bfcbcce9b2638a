"""The real retriever over an index that gave up what stands in the file `given_up` beside this one, where that is.

Copied as `retriever/1/model.py` into the repository of tests/server/test_degraded_index.py.
"""

from pathlib import Path

from tritonrag_backends.index import Index
from tritonrag_backends.models import retriever

_GIVEN_UP = Path(__file__).resolve().with_name("given_up")


def _given_up(_: Index) -> str:
    return _GIVEN_UP.read_text(encoding="utf-8") if _GIVEN_UP.exists() else ""


Index.degraded = property(_given_up)
TritonPythonModel = retriever.TritonPythonModel
