"""Retrieval quality with the int8 embedder against fp32: `python -m tritonrag_perf.precision_quality`.

    python -m tritonrag_perf.precision_quality --documents DIR --work DIR --output DIR [--passages N]

The same passages are embedded in each precision, into an index of their own under --work, which the next run uses again (a run
that was broken off goes on). Questions are embedded in the precision of the index that they are asked of. Search is exact, so that
all the difference is the embedder's. `perf/questions/README.md` tells where the documents come from. Writes DIR/NAME.md and
DIR/NAME.json.
"""

import argparse
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import compress
from pathlib import Path

from tritonrag.commands.eval import open_index
from tritonrag.index_options import ALL_CORES
from tritonrag.terminal import Steps, open_steps, write
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import MODEL_FILES, EmbedderManifest, Precision
from tritonrag_backends.index.format import CURRENT
from tritonrag_backends.index.writer import encode_passage
from tritonrag_backends.settings import Settings, load_settings
from tritonrag_client.contract import Mode, Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.chunking import DEFAULT_TARGET_TOKENS, chunk, fitting_tokens
from tritonrag_export.documents.model import Document, DocumentPassages
from tritonrag_export.documents.units import read_units
from tritonrag_export.indexing import BuildOptions, BuildProgress, build_index
from tritonrag_perf.document_lookup import DocumentLookup
from tritonrag_perf.judgements import QuestionFile
from tritonrag_perf.machine import Machine
from tritonrag_perf.precision_quality_report import (
    PRECISIONS,
    PrecisionRecord,
    QuestionScores,
    write_precision_record,
)
from tritonrag_perf.question_file import read_questions_with_answers
from tritonrag_perf.question_matching import match
from tritonrag_perf.relevance_measures import TOP, evaluate, require_pytrec_eval
from tritonrag_perf.retrieval_quality import Asking, QualityPlan, Search, no_progress

_MODES: tuple[Mode, ...] = ("dense", "hybrid")  # lexical search knows no vectors
_PLAN = QualityPlan(modes=_MODES, cutoffs=(TOP,))


def main() -> None:
    """Build what is not there yet, measure, write the record."""
    options = _parser().parse_args()
    require_pytrec_eval()
    questions = read_questions_with_answers(options.questions)
    with open_steps() as steps:
        record = measure(
            questions,
            options.documents,
            embedder=options.embedder,
            work=options.work,
            most=options.passages,
            steps=steps,
        )
    for path in write_precision_record(record, options.output, options.name):
        write(str(path))


def measure(
    questions: QuestionFile, documents: Sequence[Path], *, embedder: Path, work: Path, most: int | None, steps: Steps
) -> PrecisionRecord:
    """Build what `work` does not hold yet, and ask every question in each precision; `most` passages, None: all.

    Raises what building and opening an index raise, BadRequestError where `documents` have nothing to do with the questions.
    """
    steps.step("reading the documents")
    units = sample(list(_read(documents, Encoder.open(embedder), steps)), most)
    settings = {precision: _settings(embedder, precision, work, units) for precision in PRECISIONS}
    for each in settings.values():
        build(each, units, steps)
    steps.step("searching")
    opened = {precision: open_index(each) for precision, each in settings.items()}
    ids = opened[PRECISIONS[0]].documents
    searches = {precision: one.search for precision, one in opened.items()}
    return PrecisionRecord(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        command=_command(most),
        questions=str(questions),
        corpus=f"{sum(len(unit.passages) for unit in units):,} passages of {len(ids):,} documents",
        embedder=EmbedderManifest.load(embedder, verify=False).name,
        missing=match(questions, DocumentLookup(ids)).missing,
        scores=tuple(compare(questions, ids, searches)),
    )


def sample(units: Sequence[DocumentPassages], most: int | None) -> list[DocumentPassages]:
    """At most `most` of the passages (None: all), evenly spread; documents of which none is left are left out."""
    total = sum(len(unit.passages) for unit in units)
    if most is None or most >= total:
        return list(units)
    if most < 1:
        raise BadRequestError(f"--passages is {most}; give at least 1, or leave it out")
    kept, place = list[DocumentPassages](), 0
    for unit in units:
        # A place is kept where the share of the passages up to it gains a whole one.
        taken = [(place + n) * most // total > (place + n - 1) * most // total for n in range(len(unit.passages))]
        place += len(unit.passages)
        if any(taken):
            kept.append(replace(unit, passages=tuple(compress(unit.passages, taken))))
    return kept


def index_key(units: Iterable[DocumentPassages], manifest: EmbedderManifest, precision: Precision) -> str:
    """What an index depends on, in a word: the passages, the vector space and the very model that embeds them."""
    digest = hashlib.sha256(f"{manifest.fingerprint} {manifest.files[MODEL_FILES[precision]].sha256}".encode())
    for unit in units:
        digest.update(f"\n{unit.id}\n".encode())
        for passage in unit.passages:
            digest.update(encode_passage(passage))
    return f"{precision}-{digest.hexdigest()[:16]}"


def build(settings: Settings, units: Sequence[DocumentPassages], steps: Steps) -> None:
    """Build the index of the settings in their precision, for exact search, unless it is there."""
    precision = settings.embedder.precision
    if (settings.index / CURRENT).exists():
        steps.note(f"{precision}: {settings.index} is there already")
        return
    steps.step(f"embedding, {precision}")
    total = sum(len(unit.passages) for unit in units)

    def tell(progress: BuildProgress) -> None:
        steps.update(progress.passages, total, detail=f"{progress.what}, {progress.passages_per_s:,.0f}/s")

    encoders = [Encoder.open(settings.embedder.model, precision=precision, threads=1) for _ in range(ALL_CORES)]
    settings.index.parent.mkdir(parents=True, exist_ok=True)
    build_index(units, encoders, settings.index, options=BuildOptions(kind="flat"), progress=tell)


def compare(
    questions: QuestionFile, documents: Sequence[str], searches: Mapping[Precision, Search]
) -> Iterator[QuestionScores]:
    """Every question in every mode, with what each precision makes of it.

    Raises BadRequestError where no relevant document at all is among `documents`.
    """
    matches = match(questions, DocumentLookup(documents))
    grades = [matched.grades for matched in matches.questions]
    for mode in _MODES:
        rankings, values = {}, {}
        for precision, search in searches.items():
            asking = Asking(matches=matches, search=search, plan=_PLAN, progress=no_progress)
            rankings[precision] = asking.rankings(mode)
            values[precision] = evaluate(grades, rankings[precision], cutoffs=_PLAN.cutoffs)
        for number, matched in enumerate(matches.questions):
            yield QuestionScores(
                question=matched.question.text,
                split=matched.question.split,
                mode=mode,
                values={p: dict(zip(_PLAN.measures, rows[number].tolist(), strict=True)) for p, rows in values.items()},
                documents={precision: ranked[number] for precision, ranked in rankings.items()},
            )


def _read(paths: Sequence[Path], tokens: Encoder, steps: Steps) -> Iterator[DocumentPassages]:
    """The passages that `tritonrag index build` would make: they depend on the tokenizer, not on the precision."""
    most = fitting_tokens(tokens.passage_tokens)

    def chunker(document: Document) -> Iterable[Passage]:
        return chunk(document, tokens, target_tokens=min(DEFAULT_TARGET_TOKENS, most), max_tokens=most)

    for number, unit in enumerate(read_units(paths, chunker=chunker, on_skip=lambda _: None)):
        steps.update(number)
        yield unit


def _settings(embedder: Path, precision: Precision, work: Path, units: Sequence[DocumentPassages]) -> Settings:
    manifest = EmbedderManifest.load(embedder, verify=False)
    if MODEL_FILES[precision] not in manifest.files:
        raise BadRequestError(
            f"the embedder in {embedder} has no {precision} model to compare; export one that has both"
        )
    return load_settings(
        {
            "TRITONRAG_INDEX": str(work / index_key(units, manifest, precision)),
            "TRITONRAG_EMBEDDER_MODEL": str(embedder),
            "TRITONRAG_EMBEDDER_PRECISION": precision,
        }
    )


def _command(most: int | None) -> str:
    """How to do it again, without the paths of one machine."""
    command = "python -m tritonrag_perf.precision_quality --documents DIR --work DIR --output DIR"
    return command if most is None else f"{command} --passages {most}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.precision_quality", description=__doc__)
    parser.add_argument("--documents", type=Path, nargs="+", required=True, help="files and folders of the corpus")
    parser.add_argument("--questions", type=Path, default=Path("perf/questions/postgresql.tsv"))
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--work", type=Path, required=True, help="folder for the two indexes, kept for the next run")
    parser.add_argument("--passages", type=int, help="at most so many, evenly spread: to try the tool")
    parser.add_argument("--name", default="precision-quality")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    return parser


if __name__ == "__main__":
    main()
