"""What is measured of an answer to a labelled question, by programs alone: citations against labels, words against passages.

Each measure is a number from 0 to 1, or None where the question or the answer does not allow it. The words of an answer are
compared with those of the relevant passages that it was given: token F1 (Rajpurkar et al., SQuAD, 2016), ROUGE-L (Lin 2004).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tritonrag_backends.prompting.citations import Citations

_WORD: Final = re.compile(r"\w+")
_FENCE: Final = "<<<"  # stands before each passage in the built-in templates, and in no proper answer
_CITATION: Final = re.compile(r"\[\d+\]")
# What the default template asks for, and the ways in which small models say it otherwise.
_REFUSALS: Final = (
    re.compile(r"\b(hold|contain|provide|have|give)s? no (answer|information|mention)", re.IGNORECASE),
    re.compile(r"\b(do|does|did)(n.t| not) (hold|contain|provide|have|give|mention|answer|say)\b", re.IGNORECASE),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question with what it is answered from, best passage first; `relevant` are the numbers of relevant ones, from 1.

    `answerable`: the corpus holds an answer. `patterns` are what a right answer matches, all of them; none where nobody wrote any.
    """

    questions: str
    question: str
    split: str
    answerable: bool
    patterns: tuple[str, ...]
    passages: tuple[str, ...]
    passage_ids: tuple[int, ...]
    relevant: tuple[int, ...]

    @property
    def reachable(self) -> bool:
        """Whether a relevant passage is among those that the model is given."""
        return bool(self.relevant)

    @property
    def moved(self) -> bool:
        """Whether the order by id is another one than by rank."""
        return list(self.passage_ids) != sorted(self.passage_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `first` is the source that stood first in the prompt.

    `failure` tells why there is no answer; "" where there is one.
    """

    text: str = ""
    first: int = 0
    finish_reason: str = ""
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: str = ""

    def cited(self, sources: int) -> frozenset[int]:
        """The sources that it cites, of so many."""
        citations = Citations(range(1, sources + 1))
        citations.push(self.text)
        citations.flush()
        return citations.cited

    @property
    def words(self) -> list[str]:
        """Its words in lower case, citations left out."""
        return words_of(_CITATION.sub(" ", self.text))

    @property
    def refuses(self) -> bool:
        """Whether it says nothing, or that the passages hold no answer."""
        return not self.words or any(refusal.search(self.text) for refusal in _REFUSALS)


def words_of(text: str) -> list[str]:
    """Letters and digits in a row, in lower case."""
    return _WORD.findall(text.lower())


def token_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """Harmonic mean of the shares of words that both have, in the answer and in the reference."""
    shared = (Counter(answer) & Counter(reference)).total()
    return 2 * shared / (len(answer) + len(reference)) if shared else 0.0


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Words of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, start=1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


def _cites(asked: Asked, answer: Answer) -> float | None:
    return float(bool(answer.cited(len(asked.passages)))) if asked.reachable else None


def _cites_relevant(asked: Asked, answer: Answer) -> float | None:
    return float(bool(answer.cited(len(asked.passages)) & {*asked.relevant})) if asked.reachable else None


def _citation_precision(asked: Asked, answer: Answer) -> float | None:
    cited = answer.cited(len(asked.passages))
    return len(cited & {*asked.relevant}) / len(cited) if asked.reachable and cited else None


def _cites_first(asked: Asked, answer: Answer) -> float | None:
    cited = answer.cited(len(asked.passages))
    return float(answer.first in cited) if asked.reachable and cited else None


def _right(asked: Asked, answer: Answer) -> float | None:
    if not asked.patterns:
        return None
    text = " ".join(answer.text.split())
    return float(all(re.search(pattern, text, re.IGNORECASE) for pattern in asked.patterns))


def _best(score: Callable[[Sequence[str], Sequence[str]], float]) -> "Value":
    """The score against the relevant passage for which it is highest."""

    def value(asked: Asked, answer: Answer) -> float | None:
        references = [words_of(asked.passages[source - 1]) for source in asked.relevant]
        return max((score(answer.words, reference) for reference in references), default=None)

    return value


def _rouge_l_recall(answer: Sequence[str], reference: Sequence[str]) -> float:
    return longest_common(answer, reference) / len(reference) if reference else 0.0


def _rouge_l_precision(answer: Sequence[str], reference: Sequence[str]) -> float:
    return longest_common(answer, reference) / len(answer) if answer else 0.0


def _refuses(*, answerable: bool) -> "Value":
    def value(asked: Asked, answer: Answer) -> float | None:
        wanted = asked.reachable if answerable else not asked.answerable
        return float(answer.refuses) if wanted else None

    return value


def _copies(_asked: Asked, answer: Answer) -> float:
    return float(_FENCE in answer.text)


Value = Callable[[Asked, Answer], float | None]

MEASURES: Final[dict[str, Value]] = {
    "right answer": _right,
    "cites a relevant document": _cites_relevant,
    "cites anything": _cites,
    "citation precision": _citation_precision,
    "cites the prompt's first passage": _cites_first,
    "token F1": _best(token_f1),
    "ROUGE-L recall": _best(_rouge_l_recall),
    "ROUGE-L precision": _best(_rouge_l_precision),
    "refuses, though a relevant passage is there": _refuses(answerable=True),
    "refuses what has no answer": _refuses(answerable=False),
    "copies the prompt's marks": _copies,
}
