"""Questions with the documents that answer them, read from a folder in the layout of the BEIR benchmark.

    FOLDER/queries.jsonl     {"_id": "q1", "text": "..."} on each line; other keys are passed over
    FOLDER/qrels/test.tsv    query-id<TAB>corpus-id<TAB>score, this line first; a score is a grade, below 1 not relevant

Source: the BEIR benchmark's own description of its format (https://github.com/beir-cellar/beir).
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.judgements import JudgedQuestion, QuestionFile, excerpt, fields_of, lines_of

_QUERIES = "queries.jsonl"
_COLUMNS = ("query-id", "corpus-id", "score")
_GRADE = re.compile(r"-?[0-9]{1,9}")
_MOST_GRADE = 1000  # the measuring library keeps a table as long as the highest grade


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgements:
    """The grades of a query's documents, and the place of the first of them."""

    place: str
    grades: dict[str, int] = field(default_factory=dict)

    def relevant(self) -> dict[str, int]:
        """The documents that answer the query; raises BadRequestError where there is none."""
        relevant = {document: grade for document, grade in self.grades.items() if grade >= 1}
        if not relevant:
            raise BadRequestError(
                f"{self.place} begins the judgements of a query of which none has score 1 or more, so that nothing could be right;"
                " add the documents that answer it, or leave its lines out"
            )
        return relevant


def read_beir(folder: Path, *, split: str | None) -> QuestionFile:
    """Read `queries.jsonl` and the qrels called `split`; None: `test`, or the one that is there.

    Queries without a judgement are left out and counted, as are judgements of queries that are not there.
    Raises BadRequestError that names the file, the line and the value that is wrong, and the way out.
    """
    if not (folder / _QUERIES).is_file():
        raise BadRequestError(
            f"{folder} holds no {_QUERIES}; give a folder in the layout of BEIR ({_QUERIES}, qrels/test.tsv), or a TSV file"
        )
    qrels = _qrels_file(folder, split)
    judgements = _read_qrels(qrels)
    queries = _read_queries(folder / _QUERIES)
    questions = tuple(
        JudgedQuestion(id=id_, text=text, relevant=judgements[id_].relevant(), split=qrels.stem)
        for id_, text in queries.items()
        if id_ in judgements
    )
    if not questions:
        raise BadRequestError(
            f"{qrels} judges no query of {folder / _QUERIES}; give the two files of one and the same data set"
        )
    return QuestionFile(
        name=f"{folder.absolute().name} ({qrels.stem})",
        questions=questions,
        unused=sum(len(judged.grades) for id_, judged in judgements.items() if id_ not in queries),
        unjudged=len(queries) - len(questions),
    )


def _qrels_file(folder: Path, split: str | None) -> Path:
    there = {path.stem: path for path in sorted((folder / "qrels").glob("*.tsv"))}
    only = next(iter(there)) if len(there) == 1 else "test"
    wanted = split if split is not None else "test" if "test" in there else only
    if wanted not in there:
        choice = f"choose among its splits {', '.join(there)}" if there else "put the judgements there"
        raise BadRequestError(f"{folder} has no qrels/{wanted}.tsv; {choice}")
    return there[wanted]


def _read_qrels(path: Path) -> dict[str, _Judgements]:
    lines = lines_of(path)
    place, header = next(lines, (f"{path}, line 1", ""))
    if tuple(header.split("\t")) != _COLUMNS:
        raise BadRequestError(f"{place} is {excerpt(header)}; begin the file with {'<TAB>'.join(_COLUMNS)}")
    judgements: dict[str, _Judgements] = {}
    for place, line in lines:
        query, document, score = fields_of(place, line, _COLUMNS)
        if not query.strip() or not document.strip():
            raise BadRequestError(f"{place} lacks an id ({excerpt(line)}); give a query's and a document's")
        if not _GRADE.fullmatch(score) or int(score) > _MOST_GRADE:
            raise BadRequestError(f"{place} has the score {excerpt(score)}; give a whole number up to {_MOST_GRADE}")
        grade = judgements.setdefault(query, _Judgements(place=place)).grades.setdefault(document, int(score))
        if grade != int(score):
            raise BadRequestError(
                f"{place} gives document {excerpt(document)} the score {score} and a line before gave it {grade};"
                " keep one of the two"
            )
    return judgements


def _read_queries(path: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    for place, line in lines_of(path):
        id_, text = _query(place, line)
        if id_ in queries:
            raise BadRequestError(f"{place} has the _id {excerpt(id_)} a second time; give each query its own")
        queries[id_] = text
    return queries


def _query(place: str, line: str) -> tuple[str, str]:
    try:
        query = json.loads(line)
    except ValueError as error:
        raise BadRequestError(f"{place} is not JSON: {error}; give an object with _id and text") from error
    id_, text = (query.get("_id"), query.get("text")) if isinstance(query, dict) else (None, None)
    if not (isinstance(id_, str) and isinstance(text, str) and id_.strip() and text.strip()):
        raise BadRequestError(
            f"{place} is {excerpt(line)}; give an object in which _id and text are strings that are not empty"
        )
    return id_, text.strip()
