"""Questions can be drawn from an index as `tritonrag index build` leaves it."""

from pathlib import Path

import pytest
from index_fakes import add
from index_fakes import build as build_first

from tritonrag_client.contract import Passage
from tritonrag_client.errors import NotFoundError
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_perf.corpus import load_passages
from tritonrag_perf.questions import draw_questions


def build(directory: Path, segments: list[list[Passage]]) -> None:
    for number, passages in enumerate(segments):
        unit = DocumentPassages(id=f"doc{number}", tenant=None, passages=tuple(passages))
        (add if number else build_first)(directory, [unit])


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
