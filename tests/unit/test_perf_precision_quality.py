"""int8 against fp32: the same passages and questions on both sides, ratios of paired questions, indexes that are built once."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from test_perf_retrieval_quality import DOCUMENTS, GAIN_2, asked, searching

from tritonrag_backends.embedding.format import EmbedderManifest
from tritonrag_backends.index.store import read_current
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_perf.bootstrap import ratio_estimate
from tritonrag_perf.machine import Machine
from tritonrag_perf.precision_quality import compare, index_key, measure, sample
from tritonrag_perf.precision_quality_report import PrecisionRecord, QuestionScores, render, write_precision_record

QUESTIONS = asked({"one": "a", "two": "b", "three": "c"}, splits="tht")
FP32 = {"one": "a", "two": "b", "three": "ec"}
INT8 = {"one": "ea", "two": "b", "three": "c"}
SEARCHES = {"fp32": searching(dense=FP32, hybrid=FP32), "int8": searching(dense=INT8, hybrid=FP32)}
SCORES = tuple(compare(QUESTIONS, DOCUMENTS, SEARCHES))  # type: ignore[arg-type]  # the names are precisions


def record(scores: tuple[QuestionScores, ...] = SCORES, missing: tuple[str, ...] = ()) -> PrecisionRecord:
    return PrecisionRecord(
        date="2026-01-01",
        machine=Machine.this(),
        command="the command",
        questions="3 questions of some.tsv",
        corpus="9 passages of 3 documents",
        embedder="a model",
        missing=missing,
        scores=scores,
    )


@dataclass
class Told:
    """Progress that is kept."""

    steps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def step(self, text: str) -> None:
        self.steps.append(text)

    def update(self, done: int, total: int | None = None, *, detail: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def unit(name: str, passages: int, text: str = "some text") -> DocumentPassages:
    return DocumentPassages(
        id=name,
        tenant=None,
        passages=tuple(Passage(text=f"{text} {n}", title=name, uri=name, start=n, end=n + 1) for n in range(passages)),
    )


def test_a_ratio_is_that_of_the_means_and_as_sure_as_the_pairs_are() -> None:
    baseline = np.random.default_rng(1).uniform(0, 1, 100)
    steady = ratio_estimate(baseline * 0.99, baseline, seed=0)
    assert steady is not None
    assert (steady.mean, steady.low, steady.high) == pytest.approx((0.99, 0.99, 0.99))
    shuffled = ratio_estimate(baseline[::-1] * 0.99, baseline, seed=0)
    assert shuffled is not None
    assert shuffled.mean == pytest.approx(0.99)
    assert shuffled.low < 0.95  # values that are no pairs are no surer than the questions
    assert shuffled.high > 1.03


def test_nothing_has_a_ratio_to_a_baseline_that_found_nothing() -> None:
    assert ratio_estimate(np.ones(3), np.zeros(3), seed=0) is None
    seldom = ratio_estimate(np.array([1.0, 0, 0]), np.array([1.0, 0, 0]), seed=0)
    assert seldom is not None
    assert (seldom.low, seldom.high) == (1, 1)


def test_each_question_has_its_values_in_each_precision_and_mode() -> None:
    assert [(one.question, one.mode) for one in SCORES] == [
        (question, mode) for mode in ("dense", "hybrid") for question in ("one", "two", "three")
    ]
    assert SCORES[0].values["fp32"]["nDCG@10"] == 1
    assert SCORES[0].values["int8"]["nDCG@10"] == pytest.approx(GAIN_2)
    assert SCORES[0].values["int8"]["recall@10"] == 1
    assert SCORES[0].shared == 1
    assert SCORES[2].shared == 1 / 2


def test_the_page_compares_all_questions_and_each_split_by_ratio() -> None:
    rows = {(one.split, one.mode, one.measure): one for one in record().comparisons()}
    assert len(rows) == 3 * 2 * 2
    everything = rows["", "dense", "nDCG@10"]
    assert (everything.questions, everything.better, everything.worse) == (3, 1, 1)
    tuning, held_out = rows["tuning", "dense", "nDCG@10"], rows["held-out", "dense", "nDCG@10"]
    assert tuning.ratio is not None
    assert held_out.ratio is not None
    assert (tuning.questions, held_out.questions) == (2, 1)
    assert tuning.ratio.mean == pytest.approx(1)
    assert tuning.ratio.low == pytest.approx(GAIN_2)  # a draw of question one alone
    assert tuning.ratio.high == pytest.approx(1 / GAIN_2)
    assert held_out.ratio.mean == 1
    assert rows["", "hybrid", "nDCG@10"].worse == 0


def test_the_page_tells_of_what_neither_can_find_and_of_a_ratio_that_is_none() -> None:
    assert "not in this corpus" not in render(record())
    assert "Of the relevant documents, 2 are not in this corpus" in render(record(missing=("x", "y")))
    nothing = compare(QUESTIONS, DOCUMENTS, dict.fromkeys(("fp32", "int8"), searching(dense={}, hybrid={})))  # type: ignore[arg-type]
    assert "| 0.0000 | 0.0000 | - | 0 | 0 | 1.000 |" in render(record(tuple(nothing)))


def test_the_json_has_every_question(tmp_path: Path) -> None:
    data, page = write_precision_record(record(), tmp_path / "new", "mine")
    assert len(json.loads(data.read_text())["scores"]) == 6
    assert page.read_text().startswith("# Retrieval quality: the int8 embedder against fp32\n")


def test_a_sample_is_as_large_as_asked_for_evenly_spread_and_in_order() -> None:
    units = [unit("a", 10), unit("b", 1), unit("c", 9)]
    for most in (1, 3, 7, 19):
        kept = sample(units, most)
        assert sum(len(one.passages) for one in kept) == most
        assert all(one.passages for one in kept)
        starts = {one.id: [passage.start for passage in one.passages] for one in kept}
        assert all(places == sorted(places) for places in starts.values())
    assert [len(one.passages) for one in sample(units, 10)] == [5, 1, 4]  # every other one
    assert sample(units, None) == sample(units, 99) == units
    with pytest.raises(BadRequestError, match="--passages is 0"):
        sample(units, 0)


def test_an_index_is_known_by_passages_precision_and_model(embedder_dir: Path) -> None:
    manifest = EmbedderManifest.load(embedder_dir, verify=False)
    key = index_key([unit("a", 2)], manifest, "int8")
    assert key.startswith("int8-")
    assert key == index_key([unit("a", 2)], manifest, "int8")
    others = [index_key(units, manifest, "int8") for units in ([unit("a", 3)], [unit("b", 2)], [unit("a", 2, "other")])]
    fp32 = index_key([unit("a", 2)], manifest, "fp32")
    assert len({key.removeprefix("int8-"), fp32.removeprefix("fp32-"), *others}) == 5


def test_both_precisions_embed_the_documents_once_and_are_asked_in_turn(embedder_dir: Path, tmp_path: Path) -> None:
    documents = tmp_path / "html"
    documents.mkdir()
    for name, text in (
        ("a", "Cats purr when they are content."),
        ("b", "A piston moves in a cylinder."),
        ("c", "Rain."),
    ):
        (documents / f"{name}.html").write_text(f"<h1>{name}</h1><p>{text}</p>")
    questions = asked({"Why do cats purr?": "a", "What moves inside a cylinder?": "b"})
    runs = []
    for _ in range(2):
        told = Told()
        work = tmp_path / "work"
        runs.append(measure(questions, [documents], embedder=embedder_dir, work=work, most=None, steps=told))
        built = {path.name.partition("-")[0]: read_current(path).embedding.precision for path in work.iterdir()}
        assert built == {"fp32": "fp32", "int8": "int8"}
    assert "embedding, int8" not in told.steps
    assert len(told.notes) == 2
    assert runs[0].scores == runs[1].scores
    assert runs[0].corpus == "3 passages of 3 documents"
    assert [one.values["int8"]["nDCG@10"] for one in runs[0].scores] == [1, 1, 1, 1]
