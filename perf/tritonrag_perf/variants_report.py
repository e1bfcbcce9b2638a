"""The record of `tritonrag_perf.variants`: every sample as JSON, and each variant against the first as a page."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from tritonrag_perf.load import Load
from tritonrag_perf.machine import Machine
from tritonrag_perf.measurement import Measurement
from tritonrag_perf.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One load of one variant in one round."""

    round: int
    variant: str
    load: Load
    questions_per_s: float
    p50_ms: float
    p99_ms: float
    client_cores: float

    @classmethod
    def of(cls, number: int, variant: str, load: Load, measured: Measurement) -> Self:
        """What perf_analyzer measured."""
        return cls(
            round=number,
            variant=variant,
            load=load,
            questions_per_s=measured.requests_per_s,
            p50_ms=measured.latency.p50_ms,
            p99_ms=measured.latency.p99_ms,
            client_cores=measured.client_cores,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantsRecord:
    """All samples of one run; `variants` are the variables of each, the first one what the others are compared with."""

    machine: Machine
    command: str
    questions: str
    variants: dict[str, dict[str, str]]
    served: tuple[Served, ...]

    def loads(self) -> list[Load]:
        """The loads, fewest clients first."""
        return sorted(dict.fromkeys(s.load for s in self.served), key=lambda load: (load.batch, load.concurrency))

    def of(self, variant: str, load: Load) -> dict[int, Served]:
        """By round."""
        return {one.round: one for one in self.served if (one.variant, one.load) == (variant, load)}

    def ratio(self, variant: str, load: Load) -> Spread:
        """Its rate for one of the first variant's in the same round."""
        mine, first = self.of(variant, load), self.of(next(iter(self.variants)), load)
        return Spread.of(mine[number].questions_per_s / first[number].questions_per_s for number in mine)


def write_variants(record: VariantsRecord, output: Path, name: str) -> list[Path]:
    """Write NAME.json and NAME.md; returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    data.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    page.write_text(render(record), encoding="utf-8")
    return [data, page]


def render(record: VariantsRecord) -> str:
    """In Markdown: the median of the rounds, with the least and the greatest."""
    first = next(iter(record.variants))
    lines = [
        f"# Variants: {', '.join(record.variants)}",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {record.machine}. {record.questions}.",
        "",
        f"    {record.command}",
        "",
        *(f"- `{name}`: {_variables(variables)}" for name, variables in record.variants.items()),
        "",
        f"| load | variant | questions/s | for one of `{first}` | p50 ms | p99 ms | client cores |",
        "|---|---|---|---|---|---|---|",
        *(_row(record, load, name) for load in record.loads() for name in record.variants),
        "",
        "Medians of the rounds, with the least and the greatest; ratios are of a variant and the first one in the same round. The",
        "client shares the server's cores.",
    ]
    return "\n".join(lines) + "\n"


def _variables(variables: dict[str, str]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in variables.items()) or "the defaults"


def _row(record: VariantsRecord, load: Load, name: str) -> str:
    served = record.of(name, load).values()

    def cell(figure: Callable[[Served], float], spec: str) -> str:
        return _cell((figure(one) for one in served), spec)

    ratio = record.ratio(name, load)
    against = f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    return (
        f"| {load!s} | `{name}` | {cell(lambda s: s.questions_per_s, '.0f')} | {against} "
        f"| {cell(lambda s: s.p50_ms, '.1f')} | {cell(lambda s: s.p99_ms, '.1f')} | {cell(lambda s: s.client_cores, '.2f')} |"
    )


def _cell(values: Iterable[float], spec: str) -> str:
    spread = Spread.of(values)
    return f"{spread.median:{spec}} ({spread.low:{spec}}-{spread.high:{spec}})"
