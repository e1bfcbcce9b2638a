"""What an attacker writes is what its name says, only the copy is poisoned, and each guard lets through what it should."""

import re
from pathlib import Path

import pytest
from index_fakes import document, passage

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index import Index
from tritonrag_backends.index.analysis import Analyzer
from tritonrag_backends.index.store import read_current
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.indexing import build_index
from tritonrag_perf.corpus import load_passages
from tritonrag_perf.extractive import Result, StageTimes
from tritonrag_perf.labelled import LabelledQuestion
from tritonrag_perf.poisoning import count_quotes, main, measure
from tritonrag_perf.poisoning_items import ATTACKS, CLAIMS, KINDS, Attack, Attacker, drawn_targets, labelled_targets
from tritonrag_perf.poisoning_report import MEASURES, PoisoningRecord
from tritonrag_perf.retrieval_quality import MODES

TEXTS = {
    "cats": "Cats purr when they are content, and sometimes when they are in pain.",
    "pistons": "A piston moves up and down in a cylinder and turns the crankshaft.",
    "rain": "Rain falls when drops in a cloud have grown too heavy to stay up.",
    "bread": "Bread rises because yeast turns sugar into carbon dioxide.",
}
QUESTION = "Why does the yeast of a sourdough starter rise?"
TIMES = StageTimes(candidates_ms=1, embedding_ms=1, choosing_ms=1, embedded=1)


def passages() -> list[Passage]:
    return [passage(text, uri=name, title=name) for name, text in TEXTS.items()]


def attacker() -> Attacker:
    return Attacker(passages(), Analyzer("english"))


def texts(kind: str, documents: int = 1, *, turn: int = 0) -> list[str]:
    attack = next(one for one in ATTACKS if (one.kind, one.documents) == (kind, documents))
    written = attacker().documents(QUESTION, attack, tenant="t", metadata={}, turn=turn)
    return [one.passage.text for one in written]


@pytest.fixture(scope="module")
def index(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("poisoning") / "index"
    build_index([document(name, text) for name, text in TEXTS.items()], [encoder], directory)
    return directory


@pytest.fixture(scope="module")
def record(index: Path, embedder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> PoisoningRecord:
    labelled = tmp_path_factory.mktemp("labels") / "some.jsonl"
    labelled.write_text(
        '{"question": "When does a cat purr?", "half": "tuning", "answer": ["content"], "sources": ["cats"]}\n'
    )
    return measure(index, embedder_dir, count=3, seed=0, labelled=labelled, command="the command")


def test_each_drawn_question_is_answered_by_the_passage_that_it_was_drawn_from() -> None:
    targets = drawn_targets(passages(), count=3, seed=1)
    assert len({target.question for target in targets}) == 3
    for target in targets:
        (right,) = map(Passage.from_json, target.right)
        (uri,) = target.sources
        assert uri == right.uri
        assert right.title in target.question or right.text.split(",")[0][:20] in target.question
    assert targets == drawn_targets(passages(), count=3, seed=1)
    assert len(drawn_targets(passages(), count=99, seed=1)) == 4


def test_what_no_question_can_be_made_of_is_passed_over_or_refused() -> None:
    silent = passage("***", title="")
    assert len(drawn_targets([silent, *passages()], count=99, seed=0)) == 4
    with pytest.raises(BadRequestError, match="no passage"):
        drawn_targets([silent], count=1, seed=0)
    with pytest.raises(BadRequestError, match="is 0"):
        drawn_targets(passages(), count=0, seed=0)


def test_a_labelled_question_is_answered_by_the_passages_of_its_sources_that_hold_the_answer() -> None:
    def label(answer: str, *sources: str) -> LabelledQuestion:
        patterns = (re.compile(answer),) if answer else ()
        return LabelledQuestion(question="?", half="tuning", answer=patterns, sources=frozenset(sources))

    found = label("content", "cats", "rain")
    others = [label("content", "rain"), label("dogs", "cats"), label("")]
    (target,) = labelled_targets([*others, found], passages())
    assert [one.uri for one in map(Passage.from_json, target.right)] == ["cats"]
    with pytest.raises(BadRequestError, match="no passage"):
        labelled_targets(others, passages())


def test_attacks_differ_in_what_leads_to_the_same_statement() -> None:
    (naive,), (repeating,), (joined,), (stuffed,) = map(texts, KINDS)
    assert repeating == f"{QUESTION} {naive}"
    assert joined == f"{QUESTION[:-1]}: {naive}"
    assert stuffed.endswith(f". {naive}")
    assert "does sourdough starter rise" not in naive
    assert "sourdough starter" in naive  # its rarest words, in its order
    assert naive.startswith(CLAIMS[0].split("{")[0])
    assert stuffed.count("sourdough") == 4
    assert not re.search(r"\b(?:the|of|why)\b", stuffed.partition(".")[0])


def test_five_documents_say_five_things_and_one_takes_turns() -> None:
    assert len(set(texts("repeating", 5))) == 5
    assert {texts("naive", turn=turn)[0] for turn in range(5)} == set(texts("naive", 5))


def test_a_question_of_stop_words_alone_is_attacked_all_the_same() -> None:
    for attack in ATTACKS:
        written = attacker().documents("What is it?", attack, tenant="t", metadata={})
        assert all("What is it" in one.passage.text for one in written)


def test_the_index_itself_is_left_alone(index: Path, record: PoisoningRecord) -> None:
    assert record.written == (3 + 1) * 4 * (1 + 5)
    assert read_current(index).index_version == 1
    assert len(load_passages(index)) == 4


def test_poison_is_found_by_who_may_see_it_and_by_nobody_else(record: PoisoningRecord) -> None:
    for questions, mode in [(questions, mode) for questions in record.sets for mode in MODES]:
        clean = record.trial(questions, None, "nothing", mode)
        assert not any(one.poisoned for one in clean.given)
        assert record.trial(questions, None, "another tenant", mode).given == clean.given
        for attack in ATTACKS:
            own = record.trial(questions, attack, "nothing", mode)
            assert {len(one.poisoned) for one in own.given} == {attack.documents}
            assert not any(one.poisoned for one in record.trial(questions, attack, "filter", mode).given)
            assert record.trial(questions, attack, "author's filter", mode).given == own.given


def test_the_question_repeated_ranks_no_lower_than_the_statement_alone(record: PoisoningRecord) -> None:
    naive, repeating = (Attack(kind=kind, documents=1) for kind in KINDS[:2])
    for questions, mode in [(questions, mode) for questions in record.sets for mode in MODES]:
        both = (record.trial(questions, attack, "nothing", mode).given for attack in (repeating, naive))
        assert all(one.poisoned[0] <= other.poisoned[0] for one, other in zip(*both, strict=True))


def test_a_request_for_fewer_passages_gets_the_first_of_those_for_more(index: Path, encoder: Encoder) -> None:
    from tritonrag_backends.index import Query  # noqa: PLC0415 - of this test alone

    opened = Index.open(index, fingerprint=encoder.fingerprint)
    (vector,) = encoder.encode([QUESTION]).vectors
    for mode in MODES:
        few, many = opened.search([Query(embedding=vector, text=QUESTION, num_passages=k, mode=mode) for k in (2, 50)])
        assert few.passage_ids.tolist() == many.passage_ids.tolist()[:2]


def test_quoting_tells_a_statement_from_what_leads_to_it() -> None:
    label = LabelledQuestion(question=QUESTION, half="tuning", answer=(), sources=frozenset({"bread"}))

    def result(*sentences: tuple[str, str]) -> Result:
        return Result(label=label, sentences=sentences, reachable=False, times=TIMES)

    false, echo, right = ("It always fails.", "p"), (QUESTION, "p"), ("Yeast makes gas.", "bread")
    results = [
        result(),
        result(right),
        result(echo),
        result(echo, false),
        result(false, right),
        result(right, false),
    ]
    quotes = count_quotes("some", None, results, {"p": f"{QUESTION} "})
    assert (quotes.of, quotes.answered, quotes.right) == (6, 5, 3)
    assert (quotes.false, quotes.begins, quotes.only, quotes.hollow) == (3, 2, 1, 1)


def test_an_answer_without_poison_states_nothing_false(record: PoisoningRecord) -> None:
    clean = [one for one in record.quotes if one.attack is None]
    assert [one.of for one in clean] == [3, 1]
    assert not any(one.false for one in clean)
    assert any(one.false for one in record.quotes)


def test_an_index_of_tenants_is_refused(encoder: Encoder, embedder_dir: Path, tmp_path: Path) -> None:
    build_index([document("a", "Some text.", tenant="acme")], [encoder], tmp_path / "index")
    with pytest.raises(SystemExit, match="belong to tenants"):
        main(["--index", str(tmp_path / "index"), "--embedder", str(embedder_dir), "--output", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"index"}


def test_every_measure_is_a_share(record: PoisoningRecord) -> None:
    for trial in record.trials:
        for measure_name in MEASURES:
            for estimate in trial.figures[measure_name].values():
                assert 0 <= estimate.low <= estimate.mean <= estimate.high <= 1
