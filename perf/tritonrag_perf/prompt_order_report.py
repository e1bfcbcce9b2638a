"""The record of `tritonrag_perf.prompt_order`: every answer as JSON, and what it comes to as a page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final, Literal

import numpy as np

from tritonrag_perf.bootstrap import CONFIDENCE, RESAMPLES, Estimate, estimates
from tritonrag_perf.machine import Machine
from tritonrag_perf.prompt_order_measures import MEASURES, Answer, Asked
from tritonrag_perf.quality import FEWEST_QUESTIONS

Order = Literal["canonical", "rank"]
ORDERS: Final[tuple[Order, ...]] = ("canonical", "rank")
_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A question and its answer in each order. `values`: each measure in both orders; None where one of them has none."""

    asked: Asked
    answers: Mapping[Order, Answer]
    values: Mapping[str, tuple[float, float] | None]

    @classmethod
    def of(cls, asked: Asked, answers: Mapping[Order, Answer]) -> "Sample":
        """Measured now, once: comparing words takes a while."""
        if any(answer.failure for answer in answers.values()):
            return cls(asked=asked, answers=answers, values=dict.fromkeys(MEASURES))
        return cls(asked=asked, answers=answers, values={name: _both(name, asked, answers) for name in MEASURES})

    @property
    def failed(self) -> bool:
        """Whether an answer is missing, so that there is nothing to compare."""
        return any(answer.failure for answer in self.answers.values())


def _both(measure: str, asked: Asked, answers: Mapping[Order, Answer]) -> tuple[float, float] | None:
    canonical, rank = (MEASURES[measure](asked, answers[order]) for order in ORDERS)
    return None if canonical is None or rank is None else (canonical, rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A measure over the questions that have it in both orders; `gain` is rank less canonical, question by question."""

    questions: int
    canonical: Estimate
    rank: Estimate
    gain: Estimate

    @property
    def beyond_noise(self) -> bool:
        """Whether the choice of so many questions does not explain the difference."""
        return self.questions >= FEWEST_QUESTIONS and self.gain.leaves_0_out


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRecord:
    """All of one run; also of one that has not ended."""

    date: str
    machine: Machine
    command: str
    model: str
    num_passages: int
    max_tokens: int
    samples: tuple[Sample, ...]

    def sets(self) -> Iterator[tuple[str, list[Sample]]]:
        """The samples of each set of questions, those without an answer left out."""
        for name in dict.fromkeys(sample.asked.questions for sample in self.samples):
            yield name, [one for one in self.samples if one.asked.questions == name and not one.failed]


def compare(samples: Sequence[Sample], measure: str) -> Compared | None:
    """None where no question has the measure in both orders."""
    pairs = [pair for sample in samples if (pair := sample.values[measure]) is not None]
    if not pairs:
        return None
    values = np.array(pairs, np.float64)
    canonical, rank, gain = estimates(np.column_stack([values, values[:, 1] - values[:, 0]]), seed=_SEED)
    return Compared(questions=len(pairs), canonical=canonical, rank=rank, gain=gain)


_NOTES: Final = f"""\
- Both orders are asked with the same passages, greedily, one question at a time; the prompts are the server's own. `canonical`
  puts passages by id, `rank` the best one first. Where both orders are the same, so are the answers, and the difference is 0.
- "questions" have the measure in both orders. Where not said otherwise these are all with a relevant passage among those given:
  one of a document that the labels name.
- "right answer": it matches all patterns of the question, if it has any. They were written for quotations: who says it in other
  words misses them. "citation precision": the share of the cited passages that are relevant, where both answers cite.
- Words are compared with the relevant passage that fits best, citations left out. ROUGE-L recall is the share of its words that
  the answer has in the same order, ROUGE-L precision the share of the answer's words that it has; token F1 heeds no order. A
  short answer to the point has a low recall: compare the columns, not the heights.
- A small model may copy the prompt, the passages' labels and marks among it, rather than answer. What it copies counts as cited and
  has the passage's words; "copies the prompt's marks" tells how often, of all questions.
- A small model often cites [1] whatever stands there. "cites the prompt's first passage" tells how often, of the answers that
  cite; so a gain in citations alone may be the habit of the model rather than better reading.
- A refusal is an empty answer, or one that says that the passages hold none; looked for by words.
- In brackets: {CONFIDENCE:.0%} bootstrap intervals of the mean difference over questions ({RESAMPLES:,} resamples, percentiles).
  **Bold** where it leaves 0 out and there are {FEWEST_QUESTIONS} questions or more, as about one row in twenty does by chance.
- What holds for this model need not hold for a larger one, nor for longer prompts."""


def render(record: OrderRecord) -> str:
    """The page, in Markdown."""
    asked = f"{record.num_passages} passages a question, answers of at most {record.max_tokens} tokens, temperature 0"
    lines = [
        "# Answers by the order of passages in the prompt",
        "",
        f"Measured on {record.date}: {record.machine}.",
        f"{record.model}, engine onnxruntime_genai; {asked}.",
        "",
        f"    {record.command}",
    ]
    for name, samples in record.sets():
        lines += _section(record, name, samples)
    return "\n".join([*lines, "", _NOTES]) + "\n"


def _section(record: OrderRecord, name: str, samples: Sequence[Sample]) -> list[str]:
    failed = sum(one.failed for one in record.samples if one.asked.questions == name)
    head = ["", f"## {len(samples):,} questions of {name}", ""]
    if samples:
        head += [_in_words(samples), ""]
    if failed:
        head += [f"{failed:,} more got no answer in one order and stand in no figure; the JSON file tells why.", ""]
    splits = [split for split in dict.fromkeys(one.asked.split for one in samples) if split]
    return [*head, *_table(samples, splits)]


def _in_words(samples: Sequence[Sample]) -> str:
    answers = [answer for one in samples for answer in one.answers.values()]
    differ = sum(len({answer.text for answer in one.answers.values()}) > 1 for one in samples)
    tokens = [answer.prompt_tokens for answer in answers]
    cut = sum(answer.finish_reason == "length" for answer in answers)
    reachable, moved = (
        sum(flags) for flags in zip(*((s.asked.reachable, s.asked.moved) for s in samples), strict=True)
    )
    unanswerable = sum(not one.asked.answerable for one in samples)
    return (
        f"{reachable:,} have a relevant passage among those given, {unanswerable:,} no answer in the corpus."
        f" For {moved:,} the orders differ, for {differ:,} the answers. Prompts have {min(tokens):,} to {max(tokens):,} tokens; an"
        f" answer took {median(answer.seconds for answer in answers):.1f} s at the median, and {cut:,} of {len(answers):,} were cut"
        " at max_tokens."
    )


def _table(samples: Sequence[Sample], splits: Sequence[str]) -> list[str]:
    headings = ["measure", "questions", *ORDERS, "rank - canonical", *(f"{split} alone" for split in splits)]
    rows = [[measure, *_cells(samples, measure, splits)] for measure in MEASURES if compare(samples, measure)]
    return [_line(headings), _line(["---"] * len(headings)), *map(_line, rows)]


def _cells(samples: Sequence[Sample], measure: str, splits: Sequence[str]) -> Iterator[str]:
    compared = compare(samples, measure)
    if compared is None:
        return
    yield f"{compared.questions:,}"
    yield from (f"{one.mean:.3f}" for one in (compared.canonical, compared.rank))
    yield _difference(compared)
    for split in splits:
        of_split = compare([one for one in samples if one.asked.split == split], measure)
        yield "-" if of_split is None else _difference(of_split)


def _difference(compared: Compared) -> str:
    gain = compared.gain
    cell = f"{gain.mean:+z.3f} [{gain.low:+z.3f}, {gain.high:+z.3f}]"
    return f"**{cell}**" if compared.beyond_noise else cell


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_order_data(record: OrderRecord, output: Path, name: str) -> Path:
    """Write NAME.json, with every answer and its measures; returns it."""
    output.mkdir(parents=True, exist_ok=True)
    data = output / f"{name}.json"
    data.write_text(json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return data


def write_order_page(record: OrderRecord, output: Path, name: str) -> Path:
    """Write NAME.md; returns it."""
    output.mkdir(parents=True, exist_ok=True)
    page = output / f"{name}.md"
    page.write_text(render(record), encoding="utf-8")
    return page
