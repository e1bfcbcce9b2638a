"""One server in several variants of its settings, in one run with rounds interleaved: `python -m tritonrag_perf.variants`.

    python -m tritonrag_perf.variants --variant plain:TRITONRAG_RETRIEVE_FUSED=false --variant fused: --output DIR [--index DIR]

A variant is NAME:VARIABLE=VALUE,... and the first one is what the others are compared with. All servers are up at once, and those
that are not asked take no CPU. The retriever keeps no answers unless a variant says so. Writes DIR/NAME.md and DIR/NAME.json.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tritonrag.admin_key import MEASURING_APIS
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import load_settings
from tritonrag_client.contract import RETRIEVE
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.command_line import told
from tritonrag_perf.corpus import QuestionSet, questions_of_index
from tritonrag_perf.load import Load, Windows
from tritonrag_perf.machine import Machine
from tritonrag_perf.perf_analyzer import PerfAnalyzer
from tritonrag_perf.questions import write_input_data
from tritonrag_perf.variants_report import Served, VariantsRecord, write_variants


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A name, and the variables that make it."""

    name: str
    variables: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """From NAME:VARIABLE=VALUE,VARIABLE=VALUE. Raises BadRequestError."""
        name, colon, rest = text.partition(":")
        pairs = [pair.partition("=") for pair in rest.split(",") if pair]
        if not name or not colon or not all(sign and variable for variable, sign, _ in pairs):
            raise BadRequestError(
                f"the variant {text!r} is none; give NAME:VARIABLE=VALUE,... or NAME: for the defaults"
            )
        return cls(name=name, variables={variable: value for variable, _, value in pairs})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured, and on what."""

    index: Path
    embedder: Path
    variants: tuple[Variant, ...]
    loads: tuple[Load, ...]
    questions: QuestionSet
    rounds: int
    seconds: float


def measure(plan: Plan) -> list[Served]:
    """Every load of every variant in every round, every other round backwards; a first round, which warms up, is thrown away."""
    with tempfile.TemporaryDirectory(prefix="tritonrag-perf-") as folder, ExitStack() as stack:
        servers = {variant.name: _start(plan, variant, stack) for variant in plan.variants}
        analyzer = PerfAnalyzer.locate(Path(folder))
        served: list[Served] = []
        for number in range(plan.rounds + 1):
            for load in plan.loads if number % 2 else reversed(plan.loads):
                data = write_input_data(
                    Path(folder) / "questions.json", plan.questions.texts, load, stream=False, max_tokens=None
                )
                for name in servers if number % 2 else reversed(servers):
                    measured = analyzer.run(
                        load, Windows(window_s=plan.seconds), url=servers[name].grpc_url, input_data=data
                    )
                    served.append(Served.of(number, name, load, measured))
            print(f"round {number} of {plan.rounds}", file=sys.stderr)  # noqa: T201 - progress
        return [one for one in served if one.round]


def _start(plan: Plan, variant: Variant, stack: ExitStack) -> RunningServer:
    fixed = {
        "TRITONRAG_INDEX": str(plan.index),
        "TRITONRAG_EMBEDDER_MODEL": str(plan.embedder),
        "TRITONRAG_RETRIEVER_CACHE_BYTES": "0",
    }
    return stack.enter_context(TritonServer()).start(
        ServeOptions(settings=load_settings(fixed | dict(variant.variables)), open_apis=MEASURING_APIS)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the record."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="tritonrag_perf.variants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/demo-index"))
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--variant", type=Variant.parse, action="append", required=True, help="NAME:VARIABLE=VALUE,...")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--batched", type=int, default=32, help="questions a request of 4 more clients; 0: none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a window; perf_analyzer takes three")
    parser.add_argument("--count", type=int, default=500, help="questions, drawn from the index")
    parser.add_argument("--name", default="variants")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(argv)
    loads = [Load(model=RETRIEVE, concurrency=clients) for clients in options.clients]
    if options.batched:
        loads.append(Load(model=RETRIEVE, concurrency=4, batch=options.batched))
    plan = Plan(
        index=options.index,
        embedder=options.embedder,
        variants=tuple(options.variant),
        loads=tuple(loads),
        questions=questions_of_index(options.index, count=options.count, seed=0),
        rounds=options.rounds,
        seconds=options.seconds,
    )
    record = VariantsRecord(
        machine=Machine.this(),
        command=told("tritonrag_perf.variants", argv),
        questions=str(plan.questions),
        variants={variant.name: dict(variant.variables) for variant in plan.variants},
        served=tuple(measure(plan)),
    )
    for path in write_variants(record, options.output, options.name):
        print(path)  # noqa: T201 - a command's result


if __name__ == "__main__":
    main()
