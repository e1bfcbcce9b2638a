"""Questions with what a right answer must hold, for measuring answers: one JSON object on each line of a file.

`answer` lists regular expressions (case ignored) that a right answer matches, all of them; `sources` the uris of which a right
answer cites one. Both are empty where the corpus holds no answer. `half` parts what constants are tuned on from what is reported.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tritonrag_client.errors import BadRequestError

Half = Literal["tuning", "held-out"]
_FIELDS = ("question", "half", "answer", "sources")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledQuestion:
    """A question and how to tell a right answer to it."""

    question: str
    half: Half
    answer: tuple[re.Pattern[str], ...]
    sources: frozenset[str]

    @property
    def answerable(self) -> bool:
        """Whether the corpus holds an answer."""
        return bool(self.answer)

    def is_answered_by(self, text: str) -> bool:
        """Whether `text`, its white space folded, holds what a right answer must hold."""
        return self.answerable and all(pattern.search(text) for pattern in self.answer)


def read_labelled(path: Path) -> list[LabelledQuestion]:
    """Read a file of labelled questions; raises BadRequestError that names the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the questions in {path} can't be read: {error}; give a file of JSON lines") from error
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(line: str, place: str) -> LabelledQuestion:
    try:
        question, half, answer, sources = (json.loads(line)[field] for field in _FIELDS)
        patterns = tuple(re.compile(pattern, re.IGNORECASE) for pattern in answer)
    except (ValueError, TypeError, KeyError, re.error) as error:
        raise BadRequestError(f"{place} is no labelled question: {error!r}; give an object with {_FIELDS}") from error
    if half not in {"tuning", "held-out"}:
        raise BadRequestError(f'{place} has half {half!r}; give "tuning" or "held-out"')
    if bool(patterns) != bool(sources):
        raise BadRequestError(
            f"{place} has only one of answer and sources; give both, or neither where there is no answer"
        )
    return LabelledQuestion(question=question, half=half, answer=patterns, sources=frozenset(sources))
