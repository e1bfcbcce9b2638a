"""Questions with the documents that answer them, read from a BEIR folder or from a TSV file.

The TSV file begins with the line `question<TAB>relevant` or `question<TAB>relevant<TAB>split`. `relevant` are ids of documents,
separated by one space, all of grade 1; `split` is a word such as tuning or held-out. The BEIR folder: `beir.py`.
"""

from pathlib import Path

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.beir import read_beir
from tritonrag_perf.judgements import JudgedQuestion, QuestionFile, excerpt, fields_of, lines_of

_COLUMNS = ("question", "relevant", "split")
_HEADERS = (_COLUMNS[:2], _COLUMNS)


def read_questions_with_answers(path: Path, *, split: str | None = None) -> QuestionFile:
    """Read a BEIR folder or a TSV file. `split`: only these questions (TSV), or the qrels of this name (BEIR, else test).

    Raises BadRequestError that names the file, the line and the value that is wrong, and the way out.
    """
    return read_beir(path, split=split) if path.is_dir() else _read_tsv(path, split=split)


def _read_tsv(path: Path, *, split: str | None) -> QuestionFile:
    lines = lines_of(path)
    header = _header(*next(lines, (f"{path}, line 1", "")))
    questions: dict[str, JudgedQuestion] = {}
    for number, (place, line) in enumerate(lines, start=1):
        question = _question(place, fields_of(place, line, header), id_=str(number))
        if question.text in questions:
            raise BadRequestError(f"{place} asks {excerpt(question.text)} a second time; leave one of them out")
        questions[question.text] = question
    chosen = tuple(question for question in questions.values() if split in {None, question.split})
    if not questions:
        raise BadRequestError(f"{path} holds no question; write one on each line after the first")
    if not chosen:
        splits = sorted({question.split for question in questions.values()} - {""})
        there = f"its splits are {', '.join(splits)}" if splits else "it has no column `split`"
        raise BadRequestError(f"{path} holds no question of the split {split!r}; {there}")
    return QuestionFile(name=path.name, questions=chosen)


def _header(place: str, line: str) -> tuple[str, ...]:
    header = tuple(line.split("\t"))
    if header not in _HEADERS:
        raise BadRequestError(
            f"{place} is {excerpt(line)}; begin the file with {' or '.join('<TAB>'.join(columns) for columns in _HEADERS)}"
        )
    return header


def _question(place: str, fields: list[str], *, id_: str) -> JudgedQuestion:
    text, relevant = fields[0].strip(), fields[1].split(" ")
    if not text:
        raise BadRequestError(f"{place} has no question; write one before the first tab, or leave the line out")
    if not fields[1].strip():
        raise BadRequestError(f"{place} names no relevant document; write at least one id, or leave the question out")
    if not all(map(str.strip, relevant)) or len(set(relevant)) != len(relevant):
        raise BadRequestError(
            f"{place} has the relevant documents {excerpt(fields[1])}; write each id once, with one space between two"
        )
    split = fields[2].strip() if len(fields) == len(_COLUMNS) else ""
    if len(fields) == len(_COLUMNS) and not split:
        raise BadRequestError(f"{place} has no split; write one, such as tuning, or leave the column out of the file")
    return JudgedQuestion(id=id_, text=text, relevant=dict.fromkeys(relevant, 1), split=split)
