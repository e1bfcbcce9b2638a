"""Promises of building: every passage once, in order, with a bounded memory, and never half a version."""

from pathlib import Path

import numpy as np
import pytest
from index_fakes import FakeEncoder, documents, lines

from tritonrag_backends.index import Index, Query
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.finding import Skipped
from tritonrag_export.documents.model import Document
from tritonrag_export.indexing import BuildProgress, build_index, embedding_text


def passages_of(index: Index) -> list[Passage]:
    number = index.manifest.segments[0].number
    return [
        Passage.from_json(data) for data in index.passages([(number << 32) | i for i in range(index.passage_count)])
    ]


def test_every_passage_is_found_by_its_own_vector_and_stands_in_the_order_of_the_documents(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    summary = build_index(documents(20), encoder, tmp_path / "a" / "index", chunker=lines)
    index = Index.open(tmp_path / "a" / "index", fingerprint="f1")
    expected = [passage for document in documents(20) for passage in lines(document)]
    assert passages_of(index) == expected
    vectors = encoder.encode([embedding_text(passage) for passage in expected]).vectors
    hits = index.search([Query(embedding=vector, num_passages=1) for vector in vectors])
    assert [int(hit.passage_ids[0]) & 0xFFFFFFFF for hit in hits] == list(range(60))
    assert (summary.documents, summary.passages, summary.kind, summary.index_version) == (20, 60, "flat", 1)
    assert summary.index_bytes == sum(path.stat().st_size for path in (tmp_path / "a/index/segments/000001").iterdir())


def test_the_manifest_tells_model_template_and_counts(tmp_path: Path) -> None:
    unread = [Skipped(path="x.pdf", reason="is no PDF; leave it out")]
    build_index(documents(3), FakeEncoder(), tmp_path, chunker=lines, skipped=unread)
    manifest = Index.open(tmp_path, fingerprint="f1").manifest
    assert (manifest.counts.documents, manifest.counts.passages, manifest.counts.skipped) == (3, 9, 1)
    assert (manifest.embedding.name, manifest.embedding.precision) == ("fake", "fp32")
    assert manifest.embedding.template.format(title="T", text="x") == embedding_text(
        Passage(text="x", title="T", uri="u", start=0, end=1)
    )


def test_passages_are_embedded_window_by_window_and_progress_is_told_after_each(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    told: list[BuildProgress] = []
    summary = build_index(documents(300, 3), encoder, tmp_path, chunker=lines, progress=told.append)
    assert encoder.largest_call == 256
    assert [entry.passages for entry in told if entry.phase == "embedding"] == [256, 512, 768, 900]
    assert (told[-1].phase, told[-1].documents, told[-1].passages) == ("completing", 300, 900)
    assert summary.truncated == 4


def test_documents_are_cut_so_that_passage_and_title_fit_the_model(tmp_path: Path) -> None:
    text = " ".join(f"Sentence number {i} says nothing." for i in range(200))
    encoder = FakeEncoder(max_tokens=64)
    build_index([Document(uri="long.txt", title="Long", text=text)], encoder, tmp_path)
    found = passages_of(Index.open(tmp_path, fingerprint="f1"))
    assert len(found) > 20
    assert all(text[passage.start : passage.end] == passage.text for passage in found)
    assert max(encoder.count_tokens([passage.text for passage in found])) <= 64 - 32


def test_a_document_without_text_is_told_and_the_rest_is_built(tmp_path: Path) -> None:
    blank = Document(uri="blank.md", title="", text="\n\n")
    unread: list[Skipped] = []

    def reading():  # noqa: ANN202
        unread.append(Skipped(path="junk.bin", reason="is binary; leave it out"))
        yield blank
        yield from documents(1)

    summary = build_index(reading(), FakeEncoder(), tmp_path, chunker=lines, skipped=unread)
    assert [skipped.path for skipped in summary.skipped] == ["junk.bin", "blank.md"]
    assert (summary.documents, summary.passages) == (1, 3)


def test_nothing_to_index_is_an_error_that_tells_what_was_looked_at_and_the_old_version_stays(tmp_path: Path) -> None:
    build_index(documents(2), FakeEncoder(), tmp_path, chunker=lines)
    unread = [Skipped(path="junk.bin", reason="is binary; leave it out")]
    with pytest.raises(
        BadRequestError, match=r"nothing to index: 1 documents .* 2 files skipped; the first: junk\.bin is binary"
    ):
        build_index([Document(uri="b", title="", text="")], FakeEncoder(), tmp_path, chunker=lines, skipped=unread)
    assert Index.open(tmp_path, fingerprint="f1").version == 1


def test_a_new_build_replaces_the_passages_and_keeps_the_old_manifest(tmp_path: Path) -> None:
    build_index(documents(2), FakeEncoder(), tmp_path, chunker=lines)
    summary = build_index(documents(1), FakeEncoder(), tmp_path, chunker=lines)
    assert summary.index_version == 2
    assert Index.open(tmp_path, fingerprint="f1").passage_count == 3
    assert len(list((tmp_path / "manifests").iterdir())) == 2


def test_an_error_while_reading_leaves_the_old_version_and_the_next_build_works(tmp_path: Path) -> None:
    def failing():  # noqa: ANN202
        yield from documents(1)
        raise BadRequestError("x")

    build_index(documents(2), FakeEncoder(), tmp_path, chunker=lines)
    with pytest.raises(BadRequestError, match="x"):
        build_index(failing(), FakeEncoder(), tmp_path, chunker=lines)
    assert Index.open(tmp_path, fingerprint="f1").version == 1
    assert build_index(documents(2), FakeEncoder(), tmp_path, chunker=lines).index_version == 2


def test_a_passage_without_a_json_form_is_refused_by_name(tmp_path: Path) -> None:
    def chunker(document: Document) -> list[Passage]:
        return [Passage(text="x", title="", uri=document.uri, start=0, end=1, metadata={"when": object()})]

    with pytest.raises(BadRequestError, match=r"'d0\.md':0 has no JSON form"):
        build_index(documents(1), FakeEncoder(), tmp_path, chunker=chunker)


def test_an_encoder_that_returns_nan_stops_the_build(tmp_path: Path) -> None:
    class Broken(FakeEncoder):
        def encode(self, texts):  # noqa: ANN001, ANN202
            embedded = super().encode(texts)
            embedded.vectors[1] = np.nan
            return embedded

    with pytest.raises(BadRequestError, match=r"d0\.md:\d+ has length nan"):
        build_index(documents(1), Broken(), tmp_path, chunker=lines)
