"""Answers in two orders of passages: asked through the server's own prompts, measured by labels, compared pair by pair."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from generation_fakes import ScriptedEngine, passage, quoting_engine

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.generation.answer_cache import AnswerCache
from tritonrag_backends.generation.answering import Answering
from tritonrag_backends.prompting.builder import PromptBuilder
from tritonrag_backends.prompting.template import PromptTemplate
from tritonrag_client.errors import BadRequestError, UnavailableError
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_export.indexing import BuildOptions, build_index
from tritonrag_perf.machine import Machine
from tritonrag_perf.prompt_order import Bench, Labelled, drawn, first_source, read_labels, retrieve
from tritonrag_perf.prompt_order_measures import MEASURES, Answer, Asked, longest_common, token_f1
from tritonrag_perf.prompt_order_report import (
    ORDERS,
    Order,
    OrderRecord,
    Sample,
    compare,
    render,
    write_order_data,
    write_order_page,
)

PASSAGES = [passage("The third by id.", "a"), passage("The first by id.", "b"), passage("The second by id.", "c")]


def asked(
    *, relevant: Sequence[int] = (2,), answerable: bool = True, patterns: Sequence[str] = (), split: str = "tuning"
) -> Asked:
    return Asked(
        questions="some.jsonl",
        question="Which is first?",
        split=split,
        answerable=answerable,
        patterns=tuple(patterns),
        passages=tuple(one.text for one in PASSAGES),
        passage_ids=(30, 10, 20),
        relevant=tuple(relevant),
    )


def answering(order: Order, engine: ScriptedEngine) -> Answering:
    prompts = PromptBuilder(
        PromptTemplate.load("default"),
        count_tokens=engine.count_tokens,
        context_tokens=1000,
        order=order,
        fence_key=b"a key",
    )
    return Answering(engine, extractive=quoting_engine(), prompts=prompts, cache=AnswerCache(None))


def bench(**engines: ScriptedEngine) -> Bench:
    return Bench({order: answering(order, engines[order]) for order in ORDERS}, max_tokens=96)


def value(measure: str, text: str, *, first: int = 2, of: Asked | None = None) -> float | None:
    return MEASURES[measure](of or asked(), Answer(text=text, first=first))


def samples(canonical: str, rank: str, count: int = 1, **label: str) -> list[Sample]:
    answers: dict[Order, Answer] = {"canonical": Answer(text=canonical, first=2), "rank": Answer(text=rank, first=1)}
    return [Sample.of(asked(**label), answers)] * count  # type: ignore[arg-type]


def record(samples: Sequence[Sample]) -> OrderRecord:
    return OrderRecord(
        date="2026-01-01",
        machine=Machine.this(),
        command="the command",
        model="a model",
        num_passages=3,
        max_tokens=96,
        samples=tuple(samples),
    )


async def test_the_same_words_of_the_model_cite_another_source_in_each_order() -> None:
    engines = {order: ScriptedEngine(texts=("So it is ", "[1].")) for order in ORDERS}
    sample = await bench(**engines).sample(asked(), PASSAGES)
    assert {order: answer.text for order, answer in sample.answers.items()} == {
        "canonical": "So it is [2].",
        "rank": "So it is [1].",
    }
    for order, first in (("canonical", "The first by id."), ("rank", "The third by id.")):
        (prompt,) = engines[order].prompts
        system = prompt.messages[0].content
        assert min((one.text for one in PASSAGES), key=system.index) == first
        assert PASSAGES[sample.answers[order].first - 1].text == first
    assert sample.values["cites a relevant document"] == (1, 0)
    assert sample.values["cites the prompt's first passage"] == (1, 1)


async def test_an_answer_that_the_model_did_not_write_is_no_answer_and_counts_nowhere() -> None:
    broken = ScriptedEngine(failure=UnavailableError("the worker died"))
    sample = await bench(canonical=ScriptedEngine(), rank=broken).sample(asked(), PASSAGES)
    assert sample.answers["canonical"].text == "a b"
    assert (sample.answers["rank"].text, sample.failed) == ("", True)
    assert sample.answers["rank"].failure == "unavailable: the worker died"
    assert all(pair is None for pair in sample.values.values())
    page = render(record([sample, *samples("x [2].", "x [1].")]))
    assert "## 1 questions of some.jsonl" in page
    assert "1 more got no answer in one order" in page


async def test_closing_ends_both_engines() -> None:
    engines = {order: ScriptedEngine() for order in ORDERS}
    await bench(**engines).close()
    assert all(engine.closed for engine in engines.values())


def test_what_stands_first_in_the_prompt_is_the_least_id_or_the_best_rank() -> None:
    assert first_source("canonical", (30, 10, 20)) == 2
    assert first_source("rank", (30, 10, 20)) == 1
    assert first_source("canonical", ()) == first_source("rank", ()) == 0


@pytest.mark.parametrize(
    ("text", "relevant", "precision", "first"),
    [
        ("So [2].", 1, 1, 1),
        ("So [1][2].", 1, 1 / 2, 1),
        ("So [3].", 0, 0, 0),
        ("So.", 0, None, None),
        ("a[2]", 0, None, None),
    ],
)
def test_citations_are_held_to_the_labels(
    text: str, relevant: float, precision: float | None, first: float | None
) -> None:
    assert value("cites a relevant document", text) == relevant
    assert value("citation precision", text) == precision
    assert value("cites the prompt's first passage", text) == first
    assert value("cites anything", text) == float(precision is not None)


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("", 1),
        (" [1]", 1),
        ("The passages hold no answer to this question.", 1),
        ("The passage doesn't contain the answer.", 1),
        ("No: it has nothing to do with it.", 0),
        ("It is first [2].", 0),
    ],
)
def test_a_refusal_is_wrong_where_a_relevant_passage_is_there_and_right_where_there_is_no_answer(
    text: str, refuses: float
) -> None:
    wrong, right = "refuses, though a relevant passage is there", "refuses what has no answer"
    assert (value(wrong, text), value(right, text)) == (refuses, None)
    nothing = asked(relevant=(), answerable=False)
    assert (value(wrong, text, of=nothing), value(right, text, of=nothing)) == (None, refuses)
    missed = asked(relevant=())
    assert (value(wrong, text, of=missed), value(right, text, of=missed)) == (None, None)


def test_words_are_compared_as_worked_out_by_hand() -> None:
    assert token_f1(["a", "b", "b"], ["b", "b", "b", "c"]) == pytest.approx(2 * 2 / 7)
    assert token_f1([], ["a"]) == token_f1(["a"], ["b"]) == 0
    assert longest_common(["a", "x", "b", "c"], ["a", "b", "y", "c", "b"]) == 3
    assert longest_common([], ["a"]) == 0
    # "The first by id.": all four words, in order, among the answer's five
    assert value("ROUGE-L recall", "The very first by id [2].") == 1
    assert value("ROUGE-L precision", "The very first by id [2].") == pytest.approx(4 / 5)
    assert value("token F1", "The very first by id [2].") == pytest.approx(8 / 9)
    assert value("ROUGE-L recall", "") == value("ROUGE-L precision", "") == 0
    both = asked(relevant=(2, 3))
    assert value("token F1", "The second by id.", of=both) == 1


def test_a_right_answer_matches_all_patterns_and_copied_marks_are_told() -> None:
    two = asked(patterns=("FIRST", "by  ?id"))
    assert value("right answer", "the first\nby\nid", of=two) == 1
    assert value("right answer", "the first", of=two) == 0
    assert value("right answer", "the first") is None
    assert value("copies the prompt's marks", "[1] <<<0123456789ab") == 1
    assert value("copies the prompt's marks", "1 << 2") == 0


def test_a_difference_is_taken_question_by_question_where_both_have_the_measure() -> None:
    mixed = [*samples("[2] a", "[1] a", 3), *samples("[1] a", "[2] a"), *samples("a", "[2] a")]
    precision = compare(mixed, "citation precision")
    cites = compare(mixed, "cites a relevant document")
    assert precision is not None
    assert cites is not None
    assert (precision.questions, precision.canonical.mean, precision.rank.mean) == (4, 3 / 4, 1 / 4)
    assert (cites.questions, cites.gain.mean) == (5, pytest.approx(2 / 5 - 3 / 5))
    assert compare(mixed, "right answer") is None


def test_only_what_many_questions_agree_on_is_bold() -> None:
    for count, bold in ((19, False), (20, True)):
        page = render(record(samples("a [1]", "a [2]", count)))
        assert ("**+1.000 [+1.000, +1.000]**" in page) is bold
    assert "**+" not in render(record([*samples("a [1]", "a [2]", 20), *samples("a [2]", "a [1]", 20)]))


def test_the_page_has_each_set_by_itself_and_each_split_beside_all() -> None:
    halves = [*samples("a [1]", "a [2]", split="tuning"), *samples("a [2]", "a [1]", split="held-out")]
    page = render(record(halves))
    row = next(line for line in page.splitlines() if line.startswith("| cites a relevant"))
    assert "tuning alone | held-out alone" in page
    assert row.endswith("| +1.000 [+1.000, +1.000] | -1.000 [-1.000, -1.000] |")
    assert "For 2 the orders differ, for 2 the answers" in page
    assert "## " not in render(record([]))


def test_the_json_has_every_answer_and_its_measures(tmp_path: Path) -> None:
    data = json.loads(write_order_data(record(samples("a [1]", "a [2]")), tmp_path / "new", "mine").read_text())
    (sample,) = data["samples"]
    assert sample["answers"]["rank"]["text"] == "a [2]"
    assert sample["values"]["cites a relevant document"] == [0, 1]
    assert write_order_page(record([]), tmp_path, "mine").read_text().startswith("# Answers by the order")


def test_a_draw_is_the_same_each_time_and_not_every_second_question() -> None:
    labels = [Labelled(text=str(n), split=("tuning", "held-out")[n % 2], documents=frozenset()) for n in range(100)]
    chosen = drawn(labels, 50)
    assert chosen == drawn(labels, 50)
    assert [int(label.text) for label in chosen] == sorted({int(label.text) for label in chosen})
    assert len(chosen) == 50
    assert {label.split for label in chosen} == {"tuning", "held-out"}
    assert drawn(labels, 0) == drawn(labels, 100) == labels
    with pytest.raises(BadRequestError, match="--questions-limit is -1"):
        drawn(labels, -1)


def test_both_kinds_of_labels_are_read_and_held_against_the_index(tmp_path: Path) -> None:
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.tsv"
    written = {"question": "one", "half": "tuning", "answer": ["Un+"], "sources": ["heapq", "absent"]}
    nothing = {"question": "two", "half": "held-out", "answer": [], "sources": []}
    lines.write_text(f"{json.dumps(written)}\n{json.dumps(nothing)}\n")
    table.write_text("question\trelevant\tsplit\nthree\tb.html\theld-out\n")
    documents = ["pydoc/heapq", "pydoc/json", "manual/b.html"]
    one, two = read_labels(lines, documents)
    assert (one.documents, one.patterns, one.answerable, one.split) == ({"pydoc/heapq"}, ("Un+",), True, "tuning")
    assert (two.documents, two.answerable) == (frozenset(), False)
    (three,) = read_labels(table, documents)
    assert (three.text, three.documents, three.split, three.answerable) == (
        "three",
        {"manual/b.html"},
        "held-out",
        True,
    )


def test_questions_come_with_the_passages_and_labels_that_the_index_gives(encoder: Encoder, tmp_path: Path) -> None:
    texts = {"rain.html": "Rain falls from clouds.", "cats.html": "Cats purr.", "cars.html": "Cars have wheels."}
    units = [DocumentPassages(id=f"/m/{n}", tenant=None, passages=(passage(t, n),)) for n, t in texts.items()]
    build_index(units, [encoder], tmp_path / "index", options=BuildOptions(kind="flat"))
    table = tmp_path / "q.tsv"
    table.write_text("question\trelevant\nWhat do cats do?\tcats.html\n")
    ((one, passages),) = retrieve(table, tmp_path / "index", encoder, passages=2, limit=0)
    assert (one.questions, one.question, len(one.passage_ids)) == ("q.tsv", "What do cats do?", 2)
    assert one.relevant == (1,)
    assert [found.text for found in passages] == list(one.passages)
    assert one.passages[0] == "Cats purr."
