"""How far documents get that somebody wrote to have questions answered falsely, and what holds them back.

    python -m tritonrag_perf.poisoning --index DIR --embedder DIR --output DIR [--questions 200] [--labelled FILE]

draws questions from the index, writes against each of them (`poisoning_items.py`), adds that to a copy of the index and asks in
every mode, before and after, with each filter and behind the wall between tenants. Encoder, index and the engine `extractive` in
one process, no Triton and no language model. --labelled adds questions that people wrote (perf/questions/pydoc.jsonl, of the pydoc
corpus). Figures do not depend on the machine. Writes NAME.json and NAME.md.
"""

import argparse
import asyncio
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.generation.engine import Prompt
from tritonrag_backends.generation.extractive import ExtractiveOptions
from tritonrag_backends.generation.sources import parse_passages
from tritonrag_backends.index import Filter, Index, Query, parse_filter
from tritonrag_backends.index.fitness import analyzer_named
from tritonrag_client.contract import Mode, Passage
from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_export.indexing import add_documents
from tritonrag_perf.command_line import told
from tritonrag_perf.corpus import load_passages
from tritonrag_perf.extractive import Result, answer_all
from tritonrag_perf.labelled import LabelledQuestion, read_labelled
from tritonrag_perf.machine import Machine
from tritonrag_perf.poisoning_items import ATTACKS, Attack, Attacker, Poison, Target, drawn_targets, labelled_targets
from tritonrag_perf.poisoning_report import (
    DEFAULT,
    DEPTHS,
    Given,
    Guard,
    PoisoningRecord,
    Quotes,
    Trial,
    write_poisoning,
)
from tritonrag_perf.retrieval_quality import MODES

# `origin` is written by whoever feeds the index, `reviewed` by the document's author.
METADATA: Final[dict[str, object]] = {"origin": "upload", "reviewed": True}
FILTERS: Final[Mapping[Guard, str]] = {
    "nothing": "",
    "filter": '{"not": {"origin": "upload"}}',
    "author's filter": '{"or": [{"reviewed": true}, {"reviewed": {"exists": false}}]}',
}
_BYSTANDER: Final = "bystander"  # a tenant without documents
_QUOTED_MODE: Final[Mode] = "hybrid"

Passages = list[bytes]  # as they lie on the disk, best first


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and the error's message where something is wrong."""
    arguments = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(arguments)
    try:
        record = measure(
            options.index,
            options.embedder,
            count=options.questions,
            seed=options.seed,
            labelled=options.labelled,
            command=told("tritonrag_perf.poisoning", arguments),
        )
    except RagError as error:
        sys.exit(str(error))
    for path in write_poisoning(record, options.output, options.name):
        print(path)  # noqa: T201 - a command's result


def measure(
    index: Path, embedder: Path, *, count: int, seed: int, labelled: Path | None, command: str
) -> PoisoningRecord:
    """Poison a copy of the index, ask before and after. The index is only read.

    Raises what opening them raises, BadRequestError where the index has tenants or no question can be made.
    """
    encoder = Encoder.open(embedder)
    clean = Index.open(index, fingerprint=encoder.fingerprint, embedder_name=encoder.name)
    if any(tenant is not None for tenant, _ in clean.document_keys):
        raise BadRequestError(f"documents of the index {index} belong to tenants; give one that everybody may see")
    passages = load_passages(index)
    sets = _sets(passages, count=count, seed=seed, labelled=labelled)
    attacker = Attacker(passages, analyzer_named(clean.manifest.options.analyzer))
    written = [one for name, targets in sets.items() for one in _written(attacker, name, targets)]
    with TemporaryDirectory(prefix="poisoning-") as work:
        poisoned = poisoned_copy(index, Path(work) / "index", [one.unit for one in written], encoder)
        asked = [Asked.of(name, targets, encoder, written) for name, targets in sets.items()]
        trials = [trial for one in asked for trial in one.trials(clean, poisoned)]
        quotes = [quoted for one in asked for quoted in one.quotes(clean, poisoned, encoder)]
    return PoisoningRecord(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        command=command,
        corpus=f"{len(passages):,} passages ({_kinds(clean)}), embedded by {encoder.name} ({encoder.precision})",
        written=len(written),
        sets={name: len(targets) for name, targets in sets.items()},
        examples=_examples(attacker, next(iter(sets.values()))[0]),
        trials=tuple(trials),
        quotes=tuple(quotes),
    )


def _kinds(index: Index) -> str:
    return ", ".join(f"`{kind}`" for kind in sorted({segment.record.kind for segment in index.segments}))


def _sets(passages: Sequence[Passage], *, count: int, seed: int, labelled: Path | None) -> dict[str, list[Target]]:
    """The questions by where they come from, in words."""
    sets = {f"drawn from the passages (seed {seed})": drawn_targets(passages, count=count, seed=seed)}
    if labelled is not None:
        sets[f"of {labelled.name}"] = labelled_targets(read_labelled(labelled), passages)
    return sets


def poisoned_copy(index: Path, copy: Path, units: Sequence[DocumentPassages], encoder: Encoder) -> Index:
    """Copy the index, add the documents to the copy as `tritonrag index add` does, and open it."""
    shutil.copytree(index, copy)
    add_documents(units, [encoder], copy)
    return Index.open(copy, fingerprint=encoder.fingerprint, embedder_name=encoder.name)


def _written(attacker: Attacker, name: str, targets: Sequence[Target]) -> Iterator[Poison]:
    for attack in ATTACKS:
        for number, target in enumerate(targets):
            tenant = _tenant(name, attack, number)
            yield from attacker.documents(target.question, attack, tenant=tenant, metadata=METADATA, turn=number)


def _tenant(name: str, attack: Attack, number: int) -> str:
    """Who sees the documents of one attack on one question, and asks that question."""
    return f"{name}/{attack}/{number}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """The questions of a set with their vectors FP32 [n, dim]; `poison` is all that was written, against whatever question.

    `leads` has by uri what stands in each of its documents before the false statement.
    """

    name: str
    targets: Sequence[Target]
    vectors: npt.NDArray[np.float32]
    poison: frozenset[bytes]
    leads: Mapping[str, str]

    @classmethod
    def of(cls, name: str, targets: Sequence[Target], encoder: Encoder, written: Sequence[Poison]) -> "Asked":
        """Embed the questions, once for all ways of asking."""
        vectors = encoder.encode([target.question for target in targets]).vectors
        poison = frozenset(one.passage.to_json() for one in written)
        leads = {one.passage.uri: one.lead for one in written}
        return cls(name=name, targets=targets, vectors=vectors, poison=poison, leads=leads)

    def trials(self, clean: Index, poisoned: Index) -> Iterator[Trial]:
        """Without poison; as a tenant who has none; and as those whose questions are attacked, with each filter."""
        yield from self._trials(clean, None, "nothing", [None] * len(self.targets))
        yield from self._trials(poisoned, None, "another tenant", [_BYSTANDER] * len(self.targets))
        for attack in ATTACKS:
            for guard in FILTERS:
                yield from self._trials(poisoned, attack, guard, self._tenants(attack))

    def quotes(self, clean: Index, poisoned: Index, encoder: Encoder) -> Iterator[Quotes]:
        """What `extractive` answers without poison, and under each attack."""
        for attack in (None, *ATTACKS):
            index = poisoned if attack else clean
            given = self._given(index, _QUOTED_MODE, self._tenants(attack), None, k=DEFAULT)
            yield count_quotes(self.name, attack, quote(self.targets, given, encoder), self.leads)

    def _tenants(self, attack: Attack | None) -> list[str | None]:
        places = range(len(self.targets))
        return [None if attack is None else _tenant(self.name, attack, number) for number in places]

    def _trials(
        self, index: Index, attack: Attack | None, guard: Guard, tenants: Sequence[str | None]
    ) -> Iterator[Trial]:
        allowed = parse_filter(FILTERS[guard]) if FILTERS.get(guard) else None
        for mode in MODES:
            given = self._given(index, mode, tenants, allowed, k=max(DEPTHS))
            yield Trial(
                questions=self.name,
                attack=attack,
                guard=guard,
                mode=mode,
                given=tuple(
                    Given.of(passages, poison=self.poison, right=target.right)
                    for passages, target in zip(given, self.targets, strict=True)
                ),
            )

    def _given(
        self, index: Index, mode: Mode, tenants: Sequence[str | None], allowed: Filter | None, *, k: int
    ) -> list[Passages]:
        queries = [
            Query(embedding=vector, text=target.question, num_passages=k, tenant=tenant, filter=allowed, mode=mode)
            for target, vector, tenant in zip(self.targets, self.vectors, tenants, strict=True)
        ]
        return [index.passages(hits.passage_ids) for hits in index.search(queries)]


def quote(targets: Sequence[Target], given: Sequence[Passages], encoder: Encoder) -> list[Result]:
    """The answers of the engine `extractive` to these questions from these passages."""
    labels = [
        LabelledQuestion(question=target.question, half="held-out", answer=(), sources=target.sources)
        for target in targets
    ]
    prompts = [
        Prompt(question=target.question, passages=parse_passages(passages))
        for target, passages in zip(targets, given, strict=True)
    ]
    return asyncio.run(answer_all(labels, encoder, prompts, 1, ExtractiveOptions()))


def count_quotes(name: str, attack: Attack | None, results: Sequence[Result], leads: Mapping[str, str]) -> Quotes:
    """Count the answers that hold a statement of the documents with these uris. What leads to it states nothing."""
    stated = [
        [uri in leads for text, uri in one.sentences if text not in " ".join(leads.get(uri, "").split())]
        for one in results
    ]
    return Quotes(
        questions=name,
        attack=attack,
        of=len(results),
        answered=sum(bool(one.sentences) for one in results),
        false=sum(map(any, stated)),
        begins=sum(flags[:1] == [True] for flags in stated),
        only=sum(bool(flags) and all(flags) for flags in stated),
        hollow=sum(bool(one.sentences) and not flags for one, flags in zip(results, stated, strict=True)),
        right=sum(one.is_rightly_cited for one in results),
    )


def _examples(attacker: Attacker, target: Target) -> dict[str, list[str]]:
    """The texts that are written against a question, by attack."""
    return {
        str(attack): [one.passage.text for one in attacker.documents(target.question, attack, tenant="", metadata={})]
        for attack in ATTACKS
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.poisoning", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--index", type=Path, required=True, help="index whose documents belong to no tenant; only read"
    )
    parser.add_argument(
        "--embedder", type=Path, required=True, help="embedder folder, of the model that made the index"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the record")
    parser.add_argument("--name", default="poisoning", help="file name of the record, without ending")
    parser.add_argument("--questions", type=int, default=200, help="to draw from the index's passages")
    parser.add_argument("--labelled", type=Path, help="file of labelled questions about the index, to ask these too")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
