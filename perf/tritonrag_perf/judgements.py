"""Questions with the documents that answer them, and what reading them from files has in common."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonrag_client.errors import BadRequestError

_EXCERPT_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedQuestion:
    """A question. `relevant` are the ids of the documents that answer it, each with its grade, 1 or more; at least one.

    `split` parts what was tuned on from what is reported; "" where the file does not part them.
    """

    id: str
    text: str
    relevant: Mapping[str, int]
    split: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionFile:
    """The questions of a file or folder called `name`, at least one.

    `unused` judgements are of questions that are not there; `unjudged` questions have no judgement and are left out.
    """

    name: str
    questions: tuple[JudgedQuestion, ...]
    unused: int = 0
    unjudged: int = 0

    def __str__(self) -> str:
        return f"{len(self.questions):,} questions of {self.name}"


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Each line of a UTF-8 file that is not blank, without its end, after its place in words ("FILE, line 3").

    Raises BadRequestError where the file can't be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the questions in {path} can't be read: {error}; give a UTF-8 file") from error
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would part a text at U+2028 and the like
        if line.strip():
            yield f"{path}, line {number}", line.removesuffix("\r")


def fields_of(place: str, line: str, columns: Sequence[str]) -> list[str]:
    """The fields of a line of a TSV file; raises BadRequestError where they are not as many as `columns`."""
    fields = line.split("\t")
    if len(fields) != len(columns):
        raise BadRequestError(
            f"{place} has {len(fields)} fields separated by tabs ({excerpt(line)}); give {len(columns)}: {', '.join(columns)}"
        )
    return fields


def excerpt(value: str) -> str:
    """A value as a message shows it: quoted, and cut where it is long."""
    return repr(value if len(value) <= _EXCERPT_CHARACTERS else value[:_EXCERPT_CHARACTERS] + "...")
