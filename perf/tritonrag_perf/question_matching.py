"""Questions held against the documents of an index: which of these are relevant, and which ids mean none of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.document_lookup import DocumentLookup
from tritonrag_perf.judgements import JudgedQuestion, QuestionFile


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedQuestion:
    """`stands_for` names the relevant id that a document of the index stands for: several copies of a document count as one.

    `grades` are the relevant ids' own. One that no document of the index matches is among them, and never found.
    """

    question: JudgedQuestion
    stands_for: Mapping[str, str]
    grades: Mapping[str, int]

    def rank(self, hits: Iterable[str], depth: int) -> tuple[str, ...]:
        """The first `depth` documents of `hits` (best first, repeats among them); relevant ones bear their relevant id."""
        ranked = dict.fromkeys(self.stands_for.get(document, document) for document in hits)
        return tuple(islice(ranked, depth))


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Questions in their order. `missing` relevant ids match no document of the index, `ambiguous` ones several."""

    questions: tuple[MatchedQuestion, ...]
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...]


def match(questions: QuestionFile, documents: DocumentLookup) -> Matches:
    """Raises BadRequestError where no relevant id at all matches a document: the questions are about something else."""
    wanted = {id_: documents.find(id_) for question in questions.questions for id_ in question.relevant}
    missing = tuple(id_ for id_, found in wanted.items() if not found)
    if len(missing) == len(wanted):
        raise BadRequestError(
            f"none of the {len(wanted):,} documents that {questions.name} calls relevant ({_few(missing)}) is among the"
            f" {len(documents):,} of the index; give the index of the documents that the questions are about"
        )
    return Matches(
        questions=tuple(_matched(question, wanted) for question in questions.questions),
        missing=missing,
        ambiguous=tuple(id_ for id_, found in wanted.items() if len(found) > 1),
    )


def _matched(question: JudgedQuestion, wanted: Mapping[str, Sequence[str]]) -> MatchedQuestion:
    """The longest id claims its documents first. One to which others leave none names one of theirs again, and is dropped."""
    stands_for: dict[str, str] = {}
    grades: dict[str, int] = {}
    for id_ in sorted(question.relevant, key=len, reverse=True):
        free = [document for document in wanted[id_] if document not in stands_for]
        if free or not wanted[id_]:
            stands_for.update(dict.fromkeys(free, id_))
            grades[id_] = question.relevant[id_]
    return MatchedQuestion(question=question, stands_for=stands_for, grades=grades)


def _few(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")  # noqa: PLR2004 - enough to know them again
