"""Questions can be drawn from an index as `tritonrag index build` leaves it."""

from pathlib import Path

import numpy as np
import pytest

from tritonrag_backends.index.format import Counts, EmbeddingRecord
from tritonrag_backends.index.writer import SegmentWriter, publish
from tritonrag_client.contract import Passage
from tritonrag_client.errors import NotFoundError
from tritonrag_perf.corpus import load_passages
from tritonrag_perf.questions import draw_questions

EMBEDDING = EmbeddingRecord(name="m", fingerprint="f", dim=2, precision="fp32", template="{title}: {text}")


def build(directory: Path, segments: list[list[Passage]]) -> None:
    records = []
    for number, passages in enumerate(segments, start=1):
        with SegmentWriter(directory, number=number, dim=2, kind="flat") as writer:
            writer.add(passages, np.tile(np.array([[1, 0]], np.float32), (len(passages), 1)))
            records.append(writer.finish())
    counts = Counts(documents=1, passages=sum(map(len, segments)), skipped=0)
    publish(directory, embedding=EMBEDDING, segments=records, counts=counts)


def passage(name: str) -> Passage:
    return Passage(
        text=f"Return the size of {name}. Ünï\0code.", title=name, uri="doc", start=0, end=9, metadata={"n": 1}
    )


def test_every_passage_of_every_segment_comes_back_as_it_was(tmp_path: Path) -> None:
    segments = [[passage("a"), passage("b")], [passage("c")]]
    build(tmp_path, segments)
    assert load_passages(tmp_path) == [*segments[0], *segments[1]]


def test_questions_come_from_its_passages(tmp_path: Path) -> None:
    build(tmp_path, [[passage("a_module")]])
    assert "What is a_module?" in draw_questions(load_passages(tmp_path), count=6)


def test_a_directory_without_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="tritonrag index build"):
        load_passages(tmp_path)
