"""The questions to measure with: drawn from the passages of an index, or read from a file."""

from dataclasses import dataclass
from pathlib import Path

from tritonrag_backends.index import Index
from tritonrag_client.contract import Passage
from tritonrag_perf.questions import draw_questions, read_questions


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSet:
    """Questions, with `origin`, where they come from in words, and `options`, those of a command that gives them again."""

    texts: tuple[str, ...]
    origin: str
    options: str

    def __str__(self) -> str:
        return f"{len(self.texts):,} questions {self.origin}"


def questions_of_index(index: Path, *, count: int, seed: int) -> QuestionSet:
    """Up to `count` questions about the passages of the live version.

    Raises NotFoundError where `index` holds no index, InternalError where it is damaged, BadRequestError where no question
    can be made of its passages.
    """
    passages = load_passages(index)
    return QuestionSet(
        texts=tuple(draw_questions(passages, count=count, seed=seed)),
        origin=f"drawn from the {len(passages):,} passages of the index (seed {seed})",
        options=f"--index DIR --count {count} --seed {seed}",
    )


def questions_of_file(path: Path) -> QuestionSet:
    """The questions of a text file, one on each line. Raises BadRequestError where it can't be read or holds none."""
    return QuestionSet(texts=tuple(read_questions(path)), origin="from a file", options="--questions FILE")


def load_passages(index: Path) -> list[Passage]:
    """Every passage of the live version, in the order of the index.

    Raises NotFoundError where `index` holds no index, InternalError where it is damaged.
    """
    return [Passage.from_json(data) for data in Index.open(index, fingerprint=None).all_passages()]
