"""The passages of an index, to make questions from."""

from pathlib import Path

from tritonrag_backends.index.segment import Segment
from tritonrag_backends.index.store import read_current
from tritonrag_client.contract import Passage


def load_passages(index: Path) -> list[Passage]:
    """Every passage of the live version, in the order of the index.

    Raises NotFoundError where `index` holds no index, InternalError where it is damaged.
    """
    manifest = read_current(index)
    dim = manifest.embedding.dim
    segments = [Segment.open(index, record, dim=dim, verify=True) for record in manifest.segments]
    return [Passage.from_json(segment.passage(row)) for segment in segments for row in range(segment.rows)]
