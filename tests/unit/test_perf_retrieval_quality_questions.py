"""Questions with answers: both file layouts are read as they are meant, and whatever is not understood is named with its line."""

import json
from pathlib import Path

import pytest

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.document_lookup import DocumentLookup
from tritonrag_perf.judgements import JudgedQuestion, QuestionFile
from tritonrag_perf.question_file import read_questions_with_answers as read
from tritonrag_perf.question_matching import Matches, match

TSV = "question\trelevant\tsplit\nHow?\ta.html b/c.html\ttuning\nWhy?\td.html\theld-out\n"
HEADER = "query-id\tcorpus-id\tscore\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def beir(folder: Path, queries: dict[str, str], **qrels: str) -> Path:
    lines = (json.dumps({"_id": id_, "text": text, "metadata": {}}) for id_, text in queries.items())
    write(folder / "queries.jsonl", "".join(f"{line}\n" for line in lines))
    for split, rows in qrels.items():
        write(folder / f"qrels/{split}.tsv", HEADER + rows)
    return folder


def test_a_tsv_file_gives_questions_with_documents_and_split(tmp_path: Path) -> None:
    file = read(write(tmp_path / "manual.tsv", TSV))
    assert file.questions == (
        JudgedQuestion(id="1", text="How?", relevant={"a.html": 1, "b/c.html": 1}, split="tuning"),
        JudgedQuestion(id="2", text="Why?", relevant={"d.html": 1}, split="held-out"),
    )
    assert str(file) == "2 questions of manual.tsv"


def test_the_split_may_be_left_out_of_a_tsv_file(tmp_path: Path) -> None:
    (question,) = read(write(tmp_path / "q.tsv", "question\trelevant\nHow?\ta.html")).questions
    assert question.split == ""


def test_one_split_can_be_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "q.tsv", TSV)
    assert [question.text for question in read(path, split="held-out").questions] == ["Why?"]
    with pytest.raises(BadRequestError, match=r"no question of the split 'test'; its splits are held-out, tuning"):
        read(path, split="test")
    with pytest.raises(BadRequestError, match="no column `split`"):
        read(write(tmp_path / "r.tsv", "question\trelevant\nHow?\ta.html"), split="test")


def test_what_other_systems_add_to_text_files_does_no_harm(tmp_path: Path) -> None:
    plain = read(write(tmp_path / "q.tsv", TSV))
    windows = read(write(tmp_path / "w/q.tsv", b"\xef\xbb\xbf" + TSV.replace("\n", "\r\n").encode() + b"\r\n"))
    assert windows == plain


def test_a_line_ends_only_at_its_end(tmp_path: Path) -> None:
    odd = "a\u2028b\x0bc\x85d"
    assert read(write(tmp_path / "q.tsv", f"question\trelevant\n{odd}\ta.html\n")).questions[0].text == odd
    folder = beir(tmp_path / "beir", {}, test="q\td\t1\n")
    write(folder / "queries.jsonl", json.dumps({"_id": "q", "text": odd}, ensure_ascii=False))
    assert read(folder).questions[0].text == odd


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", r"q\.tsv, line 1 is ''; begin the file with question<TAB>relevant or question<TAB>relevant<TAB>split"),
        ("How?\ta.html\n", r"line 1 is 'How\?\\ta\.html'"),
        ("question\trelevant\n", "holds no question"),
        ("question\trelevant\nHow? a.html\n", r"line 2 has 1 fields .*give 2: question, relevant"),
        ("question\trelevant\nHow?\ta\ttuning\n", "line 2 has 3 fields"),
        ("question\trelevant\n\n\tb\n", r"line 3 has no question"),
        ("question\trelevant\nHow?\t\n", r"line 2 names no relevant document"),
        ("question\trelevant\nHow?\ta  b\n", r"line 2 has the relevant documents 'a  b'; .*one space"),
        ("question\trelevant\nHow?\ta \n", r"'a '"),
        ("question\trelevant\nHow?\ta b a\n", r"'a b a'.*once"),
        ("question\trelevant\tsplit\nHow?\ta\t\n", r"line 2 has no split"),
        ("question\trelevant\nHow?\ta\nHow?\tb\n", r"line 3 asks 'How\?' a second time"),
        (b"question\trelevant\nHow\xff?\ta\n", r"q\.tsv can't be read: .*UTF-8"),
    ],
)
def test_a_bad_line_of_a_tsv_file_is_named(tmp_path: Path, content: str | bytes, named: str) -> None:
    with pytest.raises(BadRequestError, match=named):
        read(write(tmp_path / "q.tsv", content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"no\.tsv can't be read"):
        read(tmp_path / "no.tsv")


def test_a_beir_folder_gives_the_judged_questions_with_their_grades(tmp_path: Path) -> None:
    rows = "q2\td1\t2\nq2\td2\t1\nq2\td3\t0\nq2\td4\t-1\nq1\td1\t1\nq1\td1\t1\n"
    file = read(beir(tmp_path / "set", {"q1": "one", "q2": " two ", "q3": "three"}, test=rows))
    assert file.questions == (
        JudgedQuestion(id="q1", text="one", relevant={"d1": 1}, split="test"),
        JudgedQuestion(id="q2", text="two", relevant={"d1": 2, "d2": 1}, split="test"),
    )
    assert (str(file), file.unused, file.unjudged) == ("2 questions of set (test)", 0, 1)


def test_judgements_of_queries_that_are_not_there_are_counted(tmp_path: Path) -> None:
    file = read(beir(tmp_path, {"q1": "one"}, test="q1\td\t1\nq8\td\t1\nq9\td\t0\nq9\te\t0\n"))
    assert (len(file.questions), file.unused) == (1, 3)


def test_the_qrels_are_test_or_the_one_that_is_there_or_the_one_that_is_named(tmp_path: Path) -> None:
    row = "q1\td\t1\n"
    several = beir(tmp_path / "several", {"q1": "one"}, dev=row, test=row, train=row)
    assert read(several).questions[0].split == "test"
    assert read(several, split="dev").questions[0].split == "dev"
    assert read(beir(tmp_path / "one", {"q1": "one"}, dev=row)).questions[0].split == "dev"


def test_qrels_that_are_not_there_are_named_with_those_that_are(tmp_path: Path) -> None:
    row = "q1\td\t1\n"
    folder = beir(tmp_path / "two", {"q1": "one"}, dev=row, train=row)
    with pytest.raises(BadRequestError, match=r"no qrels/test\.tsv; choose among its splits dev, train"):
        read(folder)
    with pytest.raises(BadRequestError, match=r"no qrels/\.\./dev\.tsv; choose"):
        read(folder, split="../dev")
    with pytest.raises(BadRequestError, match=r"no qrels/test\.tsv; put the judgements there"):
        read(beir(tmp_path / "none", {"q1": "one"}))


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ("q1\td1\n", r"test\.tsv, line 2 has 2 fields .*give 3: query-id, corpus-id, score"),
        ("q1\td1\t1.0\n", r"line 2 has the score '1\.0'; give a whole number"),
        ("q1\td1\t9999999\n", "whole number up to 1000"),
        ("q1\td1\t\u0661\n", "whole number"),
        ("q1\t\t1\n", "line 2 lacks an id"),
        ("q1\td1\t1\nq1\td1\t2\n", r"line 3 gives document 'd1' the score 2 and a line before gave it 1"),
        ("q1\td1\t1\nq2\td1\t0\n", r"line 3 begins the judgements of a query of which none has score 1 or more"),
        ("q7\td1\t1\n", r"judges no query of .*queries\.jsonl"),
    ],
)
def test_a_bad_line_of_the_qrels_is_named(tmp_path: Path, rows: str, named: str) -> None:
    with pytest.raises(BadRequestError, match=named):
        read(beir(tmp_path, {"q1": "one", "q2": "two"}, test=rows))


def test_qrels_without_their_header_are_refused(tmp_path: Path) -> None:
    folder = beir(tmp_path, {"q1": "one"})
    write(folder / "qrels/test.tsv", "q1\t0\td1\t1\n")
    with pytest.raises(BadRequestError, match=r"line 1 is .*query-id<TAB>corpus-id<TAB>score"):
        read(folder)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", r"queries\.jsonl, line 1 is not JSON"),
        ("[]", r"line 1 is '\[\]'; give an object"),
        ('{"_id": 1, "text": "one"}', "strings that are not empty"),
        ('{"_id": "q1", "text": " "}', "strings that are not empty"),
        ('{"_id": "q1", "text": "one"}\n{"_id": "q1", "text": "uno"}', "line 2 has the _id 'q1' a second time"),
    ],
)
def test_a_bad_line_of_the_queries_is_named(tmp_path: Path, line: str, named: str) -> None:
    folder = beir(tmp_path, {}, test="q1\td\t1\n")
    write(folder / "queries.jsonl", line)
    with pytest.raises(BadRequestError, match=named):
        read(folder)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BadRequestError, match=r"holds no queries\.jsonl; give a folder in the layout of BEIR .*or a TSV file"
    ):
        read(tmp_path)


def test_an_id_means_the_document_that_is_called_so_or_whose_path_ends_so() -> None:
    lookup = DocumentLookup(["/x/a.html", "/x/sql/a.html", "/x/ba.html", "b", "/y/b"])
    assert lookup.find("a.html") == ("/x/a.html", "/x/sql/a.html")
    assert lookup.find("sql/a.html") == ("/x/sql/a.html",)
    assert lookup.find("b") == ("b",)
    assert lookup.find("c") == lookup.find("html") == lookup.find("") == ()


def test_documents_are_shown_without_the_folder_that_they_share() -> None:
    assert DocumentLookup(["/x/manual/a", "/x/manual/sql/b"]).short("/x/manual/sql/b") == "sql/b"
    assert DocumentLookup(["/x/manual-1/a", "/x/manual-2/a"]).short("/x/manual-1/a") == "manual-1/a"
    for documents in (["/x/a"], ["d1", "d2"], ["pydoc:topics/if", "pydoc:re"], []):
        assert [DocumentLookup(documents).short(document) for document in documents] == documents


def matched(relevant: dict[str, int], documents: list[str]) -> Matches:
    question = JudgedQuestion(id="1", text="How?", relevant=relevant)
    return match(QuestionFile(name="q.tsv", questions=(question,)), DocumentLookup(documents))


def test_copies_of_a_relevant_document_count_as_one_and_are_told() -> None:
    matches = matched({"a": 1, "b": 1}, ["/x/a", "/y/a", "/x/b", "/x/c"])
    assert matches.ambiguous == ("a",)
    (question,) = matches.questions
    assert question.rank(["/x/c", "/y/a", "/x/c", "/x/a", "/x/b"], depth=9) == ("/x/c", "a", "b")
    assert question.rank(["/x/c", "/y/a", "/x/b"], depth=2) == ("/x/c", "a")


def test_a_longer_id_has_the_first_claim_to_a_document() -> None:
    (question,) = matched({"a": 1, "sql/a": 1}, ["/x/a", "/x/sql/a"]).questions
    assert question.rank(["/x/sql/a", "/x/a"], depth=9) == ("sql/a", "a")
    assert question.grades == {"a": 1, "sql/a": 1}


def test_a_document_that_is_named_twice_is_wanted_once() -> None:
    (question,) = matched({"a": 1, "sql/a": 1}, ["/x/sql/a"]).questions
    assert question.grades == {"sql/a": 1}


def test_an_id_of_no_document_stays_wanted_and_is_told() -> None:
    matches = matched({"a": 1, "z": 2}, ["/x/a"])
    assert matches.missing == ("z",)
    assert matches.questions[0].grades == {"a": 1, "z": 2}
