"""`tritonrag eval`: how well the index finds the right documents, on questions whose right documents are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritonrag.settings import settings_from
from tritonrag.terminal import Steps, open_steps, tell, write, write_json
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index import Index, Query
from tritonrag_backends.settings import Settings
from tritonrag_client.contract import Mode
from tritonrag_perf.judgements import QuestionFile
from tritonrag_perf.machine import Machine
from tritonrag_perf.plot import require_matplotlib
from tritonrag_perf.quality import QualityRecord
from tritonrag_perf.quality_report import warnings_of, write_quality_record
from tritonrag_perf.question_file import read_questions_with_answers
from tritonrag_perf.relevance_measures import TOP, require_pytrec_eval
from tritonrag_perf.retrieval_quality import CUTOFFS, MODES, QualityPlan, Search, measure

TITLE = "Retrieval quality"
_PIPED_WIDTH = 120  # columns where nobody's terminal says how many there are


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIndex:
    """What there is to search: the ids of all its documents, the search, and the index in words."""

    documents: Sequence[str]
    search: Search
    words: str


def run(
    *,
    questions: Path,
    index: Path | None,
    embedder: Path | None,
    modes: tuple[Mode, ...] = MODES,
    k: tuple[int, ...] = CUTOFFS,
    split: str | None = None,
    num_passages: int | None = None,
    output: Path | None = None,
    name: str = "retrieval-quality",
    plot: bool = True,
    json: bool = False,
) -> None:
    """Measure, print the table and, with `output`, write the record (JSON, page and, with `plot`, picture).

    `k`: recall is told at these. `split`: only the questions of this one; with a BEIR folder the name of its qrels.
    `num_passages` are asked for; None: 5 for each document of a ranking.
    What is missing or wrong in files and options is told before anything is searched. Raises RagError.
    """
    plan = QualityPlan(modes=tuple(dict.fromkeys(modes)), cutoffs=tuple(sorted(set(k))), num_passages=num_passages)
    require_pytrec_eval()
    if output is not None and plot:
        require_matplotlib()
    asked = read_questions_with_answers(questions, split=split)
    record = _measure(asked, settings_from(index=index, embedder=embedder), plan, split)
    files = write_quality_record(record, output, name=name, title=TITLE, plot=plot) if output is not None else []
    if json:
        write_json({**record.to_dict(), "files": [*map(str, files)]})
        return
    _print(record, files)
    for warning in [*_reading_notes(asked), *warnings_of(record.report)]:
        tell(warning)


def open_index(settings: Settings) -> OpenIndex:
    """The live version of the index and its embedding model, in this process."""
    encoder = Encoder.open(settings.embedder.model, precision=settings.embedder.precision)
    index = Index.open(settings.index, fingerprint=encoder.fingerprint, embedder_name=encoder.name)
    embeddings: dict[str, npt.NDArray[np.float32]] = {}  # every mode asks the same questions

    def search(questions: Sequence[str], mode: Mode, passages: int) -> list[list[str]]:
        new = [question for question in dict.fromkeys(questions) if question not in embeddings]
        embeddings.update(zip(new, encoder.encode(new).vectors, strict=True))
        queries = [
            Query(embedding=embeddings[question], num_passages=passages, text=question, mode=mode)
            for question in questions
        ]
        return [index.documents_of(hits.passage_ids) for hits in index.search(queries)]

    documents = index.document_ids()
    words = f"{index.passage_count:,} passages of {len(documents):,} documents, embedded by {encoder.name} ({encoder.precision})"
    return OpenIndex(documents=documents, search=search, words=words)


def _measure(questions: QuestionFile, settings: Settings, plan: QualityPlan, split: str | None) -> QualityRecord:
    with open_steps() as steps:
        steps.step("opening the index and its embedding model")
        opened = open_index(settings)
        progress = _Progress(steps, questions)
        report = measure(questions, opened.documents, opened.search, plan=plan, progress=progress)
    return QualityRecord(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        command=_command(plan, split),
        questions=str(questions),
        index=opened.words,
        report=report,
    )


class _Progress:
    """A step for each search of all questions."""

    def __init__(self, steps: Steps, questions: QuestionFile) -> None:
        self._steps, self._total = steps, len(questions.questions)

    def __call__(self, mode: Mode, done: int) -> None:
        if done == 0:
            self._steps.step(f"searching, {mode}")
        self._steps.update(done, self._total)


def _command(plan: QualityPlan, split: str | None) -> str:
    """How to do it again, without the paths of one machine."""
    options = [*(f"--mode {mode}" for mode in plan.modes), *(f"--k {cutoff}" for cutoff in plan.cutoffs)]
    options.append(f"--num-passages {plan.passages}")
    if split is not None:
        options.append(f"--split {split}")
    return " ".join(["tritonrag eval --questions FILE --index DIR --output DIR", *options])


def _print(record: QualityRecord, files: Sequence[Path]) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people alone

    from tritonrag_perf.quality_table import terminal_tables  # noqa: PLC0415 - as above

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    write(f"{record.questions}, asked of {record.index}")
    for table in terminal_tables(record.report):
        console.print("", table)
    report = record.report
    missed = {mode: sum(outcome.is_missed(mode, TOP) for outcome in report.outcomes) for mode in report.modes}
    write(f"\nno relevant document among the first {TOP}: {', '.join(f'{mode} {n:,}' for mode, n in missed.items())}")
    write("in brackets: 95 % intervals over questions; *: a difference beyond what the choice of questions explains")
    if files:
        write(f"written: {', '.join(map(str, files))}")


def _reading_notes(questions: QuestionFile) -> list[str]:
    """What of the question file was left aside."""
    notes = []
    if questions.unused:
        notes.append(f"judgements of queries that are not in the queries' file, not used: {questions.unused:,}")
    if questions.unjudged:
        notes.append(f"queries without a judgement in these qrels, not asked: {questions.unjudged:,}")
    return notes
