"""Retrieval quality: figures as worked out by hand, and intervals that say no more than the questions do."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonrag_client.contract import Mode
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.bootstrap import Estimate, estimates
from tritonrag_perf.judgements import JudgedQuestion, QuestionFile
from tritonrag_perf.quality import QualityReport
from tritonrag_perf.relevance_measures import evaluate, names_of
from tritonrag_perf.retrieval_quality import QualityPlan, Search, measure

DOCUMENTS = [f"/manual/html/{name}.html" for name in "abcdefghijklmnop"]
GAIN_2, GAIN_4 = 1 / math.log2(3), 1 / math.log2(5)  # what a document of grade 1 is worth at ranks 2 and 4


def paths(names: str) -> list[str]:
    return [f"/manual/html/{name}.html" for name in names]


def asked(relevant: Mapping[str, str], splits: str = "") -> QuestionFile:
    """A question for each entry, with the documents that answer it, one letter each; splits by their first letters."""
    of = {"t": "tuning", "h": "held-out"}
    return QuestionFile(
        name="some.tsv",
        questions=tuple(
            JudgedQuestion(
                id=str(number),
                text=text,
                relevant={f"{name}.html": 1 for name in names},
                split=of[splits[number]] if splits else "",
            )
            for number, (text, names) in enumerate(relevant.items())
        ),
    )


def searching(**found: Mapping[str, str]) -> Search:
    """A search that finds, in each mode and for each question, these documents, a letter a passage."""

    def search(questions: Sequence[str], mode: Mode, passages: int) -> list[list[str]]:
        return [paths(found[mode].get(question, ""))[:passages] for question in questions]

    return search


def means(report: QualityReport, mode: Mode, split: int = 0) -> dict[str, float]:
    return {name: estimate.mean for name, estimate in report.splits[split].scores[mode].items()}


QUESTIONS = asked({"one": "a", "two": "bc", "three": "d"}, splits="tht")
DENSE = {"one": "a", "two": "eebfc", "three": "ef"}
LEXICAL = {"one": "ba", "two": "bc", "three": "gghd"}
HYBRID = {"one": "a", "two": "bce", "three": "d"}
SEARCH = searching(dense=DENSE, lexical=LEXICAL, hybrid=HYBRID)
REPORT = measure(QUESTIONS, DOCUMENTS, SEARCH, plan=QualityPlan())


def test_the_figures_of_a_mode_are_the_means_worked_out_by_hand() -> None:
    ndcg_two = (GAIN_2 + GAIN_4) / (1 + GAIN_2)  # e b f c: the relevant b and c at ranks 2 and 4
    assert means(REPORT, "dense", 2) == pytest.approx(
        {
            "recall@1": 1 / 3,
            "recall@5": 2 / 3,
            "recall@10": 2 / 3,
            "MRR@10": (1 + 1 / 2 + 0) / 3,
            "nDCG@10": (1 + ndcg_two + 0) / 3,
        }
    )


def test_each_split_has_figures_of_its_own_and_all_come_last() -> None:
    assert [(split.split, split.questions) for split in REPORT.splits] == [("tuning", 2), ("held-out", 1), (None, 3)]
    assert [means(REPORT, "dense", number)["recall@5"] for number in range(3)] == pytest.approx([1 / 2, 1, 2 / 3])
    assert means(REPORT, "lexical", 0)["MRR@10"] == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_questions_of_one_split_are_told_once() -> None:
    search = searching(dense={"one": "a"})
    plan = QualityPlan(modes=("dense",))
    for splits, named in (("", [None]), ("h", ["held-out"])):
        report = measure(asked({"one": "a"}, splits), DOCUMENTS, search, plan=plan)
        assert [split.split for split in report.splits] == named


def test_a_difference_is_one_mode_less_another() -> None:
    differences = {str(difference): difference for difference in REPORT.splits[2].differences}
    assert list(differences) == ["hybrid - dense", "hybrid - lexical", "lexical - dense"]
    for name, measured in (("hybrid - dense", 1 / 2), ("hybrid - lexical", 7 / 18), ("lexical - dense", 1 / 9)):
        assert differences[name].scores["MRR@10"].mean == pytest.approx(measured)


def test_a_difference_that_every_question_shares_is_beyond_noise_and_one_that_questions_dispute_is_not() -> None:
    texts = [f"q{number}" for number in range(60)]
    questions = asked(dict.fromkeys(texts, "a"))
    first, second = dict.fromkeys(texts, "a"), dict.fromkeys(texts, "ba")
    odd, even = ({text: "a" if n % 2 == rest else "ba" for n, text in enumerate(texts)} for rest in (1, 0))
    for dense, lexical, beyond in (
        (second, first, True),
        (first, second, True),
        (first, first, False),
        (odd, even, False),
    ):
        search = searching(dense=dense, lexical=lexical)
        report = measure(questions, DOCUMENTS, search, plan=QualityPlan(modes=("dense", "lexical")))
        (difference,) = report.splits[0].differences
        assert report.splits[0].is_beyond_noise(difference.scores["MRR@10"]) is beyond


def test_with_few_questions_no_difference_is_beyond_noise() -> None:
    for count, beyond in ((19, False), (20, True)):
        texts = [f"q{number}" for number in range(count)]
        search = searching(dense=dict.fromkeys(texts, "ba"), lexical=dict.fromkeys(texts, "a"))
        report = measure(
            asked(dict.fromkeys(texts, "a")), DOCUMENTS, search, plan=QualityPlan(modes=("dense", "lexical"))
        )
        assert report.splits[0].is_beyond_noise(report.splits[0].differences[0].scores["MRR@10"]) is beyond


def test_modes_that_are_not_measured_are_in_no_difference() -> None:
    report = measure(QUESTIONS, DOCUMENTS, SEARCH, plan=QualityPlan(modes=("lexical", "hybrid")))
    assert report.modes == ("lexical", "hybrid")
    assert [str(difference) for difference in report.splits[0].differences] == ["hybrid - lexical"]


def test_the_same_seed_gives_the_same_report() -> None:
    assert measure(QUESTIONS, DOCUMENTS, SEARCH, plan=QualityPlan()) == REPORT


def test_each_question_tells_where_its_first_relevant_document_stood() -> None:
    two, three = REPORT.outcomes[1:]
    assert (two.question, two.split, two.relevant) == ("two", "held-out", ("b.html", "c.html"))
    assert two.found["dense"].rank == 2
    assert two.found["dense"].documents == ("e.html", "b.html", "f.html", "c.html")
    assert {mode: found.rank for mode, found in three.found.items()} == {"dense": None, "lexical": 3, "hybrid": 1}
    assert [three.is_missed(mode, 2) for mode in REPORT.modes] == [True, True, False]


def test_mrr_ends_at_rank_10_and_recall_goes_on_to_its_cutoff() -> None:
    search = searching(dense={"one": "bcdefghijka"})
    plan = QualityPlan(modes=("dense",), cutoffs=(10, 11))
    report = measure(asked({"one": "a"}), DOCUMENTS, search, plan=plan)
    assert means(report, "dense") == {"recall@10": 0, "recall@11": 1, "MRR@10": 0, "nDCG@10": 0}
    assert report.outcomes[0].found["dense"].rank == 11


def test_so_many_passages_are_asked_for_that_several_of_one_document_leave_room_for_others() -> None:
    seen: list[tuple[int, Mode, int]] = []

    def search(questions: Sequence[str], mode: Mode, passages: int) -> list[list[str]]:
        seen.append((len(questions), mode, passages))
        return [paths("a") for _ in questions]

    questions = asked({f"q{number}": "a" for number in range(70)})
    for plan in (
        QualityPlan(modes=("dense",)),
        QualityPlan(modes=("dense",), cutoffs=(100,)),
        QualityPlan(modes=("dense",), num_passages=20),
    ):
        measure(questions, DOCUMENTS, search, plan=plan)
    assert seen == [(n, "dense", passages) for passages in (50, 500, 20) for n in (64, 6)]


def test_rankings_that_are_short_are_counted() -> None:
    assert REPORT.short == {"dense": 3, "lexical": 3, "hybrid": 3}
    full = searching(dense={"one": "abcdefghij"})
    assert measure(asked({"one": "a"}), DOCUMENTS, full, plan=QualityPlan(modes=("dense",))).short == {"dense": 0}


def test_a_relevant_document_that_the_index_lacks_counts_against_every_mode_and_is_named() -> None:
    questions = asked({"one": "az"})
    report = measure(questions, DOCUMENTS, searching(dense={"one": "a"}), plan=QualityPlan(modes=("dense",)))
    assert report.missing == ("z.html",)
    assert means(report, "dense") == pytest.approx(
        {"recall@1": 1 / 2, "recall@5": 1 / 2, "recall@10": 1 / 2, "MRR@10": 1, "nDCG@10": 1 / (1 + GAIN_2)}
    )


def test_an_index_of_other_documents_is_refused_before_anything_is_searched() -> None:
    def search(_questions: Sequence[str], _mode: Mode, _passages: int) -> list[list[str]]:
        raise AssertionError

    message = (
        r"none of the 4 documents that some\.tsv calls relevant \(a\.html, b\.html, c\.html, \.\.\.\) is among the 1"
    )
    with pytest.raises(BadRequestError, match=message):
        measure(QUESTIONS, ["/other/page.html"], search, plan=QualityPlan())


def test_progress_is_told_before_each_batch() -> None:
    told: list[tuple[Mode, int]] = []
    questions = asked({f"q{number}": "a" for number in range(70)})
    plan = QualityPlan(modes=("dense", "hybrid"))
    search = searching(dense={}, hybrid={})
    measure(questions, DOCUMENTS, search, plan=plan, progress=lambda mode, done: told.append((mode, done)))
    assert told == [("dense", 0), ("dense", 64), ("hybrid", 0), ("hybrid", 64)]


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        ({"modes": ()}, r"modes are \[\]"),
        ({"modes": ("dense", "telepathic")}, "telepathic"),
        ({"modes": ("dense", "dense")}, "each once"),
        ({"cutoffs": ()}, r"wanted at \[\]"),
        ({"cutoffs": (0, 5)}, r"\[0, 5\]"),
        ({"cutoffs": (5, 1)}, "ascending"),
        ({"cutoffs": (2000,)}, "wanted at 2000"),
        ({"num_passages": 9}, "num_passages is 9"),
    ],
)
def test_what_can_not_be_measured_is_named(plan: dict[str, tuple[Mode, ...]], named: str) -> None:
    with pytest.raises(BadRequestError, match=named):
        QualityPlan(**plan)  # type: ignore[arg-type]


def test_grades_weigh_in_ndcg_alone() -> None:
    names = names_of((1,))
    values = evaluate([{"much": 2, "little": 1}], [["little", "much"]], cutoffs=(1,))
    assert dict(zip(names, values[0], strict=True)) == pytest.approx(
        {"recall@1": 1 / 2, "MRR@10": 1, "nDCG@10": (1 + 2 * GAIN_2) / (2 + GAIN_2)}
    )


def by_definition(grades: Mapping[str, int], ranking: Sequence[str], cutoffs: Sequence[int]) -> list[float]:
    recalls = [sum(document in grades for document in ranking[:cutoff]) / len(grades) for cutoff in cutoffs]
    first = next((1 / rank for rank, document in enumerate(ranking[:10], 1) if document in grades), 0.0)
    best = dcg(sorted(grades.values(), reverse=True)[:10])
    return [*recalls, first, dcg([grades.get(document, 0) for document in ranking[:10]]) / best]


def dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


NAMES = st.sampled_from([f"d{number}" for number in range(30)] + ["Ünï|cödé \x00#"])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(NAMES, st.integers(1, 1000), min_size=1, max_size=15),
            st.lists(NAMES, unique=True, max_size=25),
        ),
        max_size=5,
    ),
    st.sets(st.integers(1, 40), min_size=1, max_size=4),
)
def test_the_librarys_figures_are_those_of_the_definitions(
    questions: list[tuple[dict[str, int], list[str]]], at: set[int]
) -> None:
    cutoffs = sorted(at)
    values = evaluate([grades for grades, _ in questions], [ranking for _, ranking in questions], cutoffs=cutoffs)
    assert values.shape == (len(questions), len(cutoffs) + 2)
    for row, (grades, ranking) in zip(values, questions, strict=True):
        assert list(row) == pytest.approx(by_definition(grades, ranking, cutoffs))


def test_an_interval_of_two_questions_that_disagree_is_all_there_is() -> None:
    assert estimates(np.array([[0.0], [1.0]]), seed=0) == [Estimate(mean=0.5, low=0.0, high=1.0)]


def test_an_interval_is_as_wide_as_the_normal_approximation_where_that_holds() -> None:
    values = np.random.default_rng(3).random((400, 1))
    (found,) = estimates(values, seed=0)
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=2e-3)


def test_columns_share_their_draws_so_that_a_constant_difference_has_no_width() -> None:
    first = np.random.default_rng(3).random(50)
    found = estimates(np.column_stack([first, first + 0.1, np.full(50, 0.1)]), seed=0)
    assert found[1].low - found[0].low == pytest.approx(0.1)
    assert (found[2].low, found[2].high) == pytest.approx((0.1, 0.1))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_an_interval_holds_its_mean(values: list[float]) -> None:
    (found,) = estimates(np.array(values)[:, None], seed=0, resamples=50)
    assert found.low <= found.mean <= found.high
