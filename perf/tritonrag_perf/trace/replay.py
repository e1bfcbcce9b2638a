"""Replays a trace against a running server: `python -m tritonrag_perf.trace.replay --trace DIR --url HOST:PORT --speed 60`.

Needs the index that the server searches and its embedder's tokenizer, to make questions of. Writes DIR/NAME.md and DIR/NAME.json
with `--output`, else prints the page. Exits with 1 where no question was answered.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tritonrag_backends.embedding.format import TOKENIZER_FILE, EmbedderManifest
from tritonrag_backends.embedding.tokens import TextTokenizer
from tritonrag_backends.settings import load_settings
from tritonrag_client.contract import GENERATOR
from tritonrag_client.errors import RagError
from tritonrag_perf.corpus import load_passages
from tritonrag_perf.machine import Machine
from tritonrag_perf.scrape import read
from tritonrag_perf.scrape import summarise as growth_of
from tritonrag_perf.trace.reading import read_trace
from tritonrag_perf.trace.replay_record import Asked, ReplayRecord, cache_use, summarise_replay
from tritonrag_perf.trace.replay_report import markdown_of, write_replay_record
from tritonrag_perf.trace.replaying import Outcome, RealClock, Replayer
from tritonrag_perf.trace.schedule import Due, Window
from tritonrag_perf.trace.sending import MODELS, Model, client_of, sender
from tritonrag_perf.trace.texts import PassageMap, TextMaker, Texts


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """What to replay against which server. `metrics`: address of its metrics, for what its caches did; None: not read."""

    trace: Path
    url: str
    index: Path
    embedder: Path
    window: Window
    model: Model = GENERATOR
    metrics: str | None = None
    num_passages: int | None = None
    max_tokens: int | None = None
    timeout_s: float = 30.0
    seed: int = 0

    def command(self) -> str:
        """How to do it again, without the paths and ports of one machine."""
        window = self.window
        optional = {"--num-passages": self.num_passages, "--max-tokens": self.max_tokens}
        given = "".join(f" {name} {value}" for name, value in optional.items() if value is not None)
        metrics = "" if self.metrics is None else " --metrics HOST:METRICS_PORT"
        return (
            f"python -m tritonrag_perf.trace.replay --trace DIR --url HOST:GRPC_PORT{metrics} --index DIR --embedder DIR"
            f" --model {self.model} --speed {window.speed:g} --seconds {window.seconds:g} --start-s {window.start_s:g}"
            f" --timeout-s {self.timeout_s:g} --seed {self.seed}{given}"
        )


def replay_trace(plan: ReplayPlan) -> ReplayRecord:
    """Replay and sum up. Raises RagError where trace, index or metrics can't be read, or an option is wrong."""
    trace = read_trace(plan.trace)
    due = plan.window.of(trace)
    passages = load_passages(plan.index)
    mapped = PassageMap(trace, passages, seed=plan.seed)
    maker = TextMaker(passages, _tokenizer(plan.embedder).count_tokens, seed=plan.seed)
    texts = maker.make((each.request for each in due), mapped)
    before = None if plan.metrics is None else read(plan.metrics)
    outcomes = asyncio.run(_replayed(plan, due, texts))
    caches = None
    if before is not None and plan.metrics is not None:
        caches = cache_use(growth_of([before, read(plan.metrics)]).counters)
    return summarise_replay(
        outcomes,
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        command=plan.command(),
        model=plan.model,
        asked=Asked.of(due, plan.window, unequal=texts.unequal, alike=texts.alike, shared_passages=mapped.shared),
        caches=caches,
    )


async def _replayed(plan: ReplayPlan, due: Sequence[Due], texts: Texts) -> list[Outcome]:
    async with client_of(plan.url, plan.model, timeout_s=plan.timeout_s) as client:
        send = sender(client, plan.model, num_passages=plan.num_passages, max_tokens=plan.max_tokens)
        replayer = Replayer(send=send, texts=texts.by_question, aims=texts.aims, clock=RealClock())
        return await replayer.run(due)


def _tokenizer(embedder: Path) -> TextTokenizer:
    manifest = EmbedderManifest.load(embedder)
    return TextTokenizer(embedder / TOKENIZER_FILE, max_tokens=manifest.max_tokens)


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and the error's message where something is wrong."""
    options = _parser().parse_args(argv)
    try:
        record = replay_trace(_plan(options))
    except RagError as error:
        sys.exit(str(error))
    if options.output is None:
        print(markdown_of(record))  # noqa: T201 - a command's result
    else:
        for path in write_replay_record(record, options.output, name=options.name):
            print(path)  # noqa: T201 - a command's result
    if not record.answers:
        sys.exit("no question was answered")


def _plan(options: argparse.Namespace) -> ReplayPlan:
    settings = load_settings()
    return ReplayPlan(
        trace=options.trace,
        url=options.url,
        metrics=options.metrics,
        index=options.index or settings.index,
        embedder=options.embedder or settings.embedder.model,
        window=Window(speed=options.speed, seconds=options.seconds, start_s=options.start_s),
        model=options.model,
        num_passages=options.num_passages,
        max_tokens=options.max_tokens,
        timeout_s=options.timeout_s,
        seed=options.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.trace.replay", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--trace", type=Path, required=True, help="folder of a trace in RAGPulse's format")
    add("--url", required=True, help="Triton's gRPC endpoint, host:port")
    add("--metrics", help="the server's metrics, host:port: tells what its caches knew")
    add("--index", type=Path, help="index that the server searches (default: as for `tritonrag serve`)")
    add("--embedder", type=Path, help="its embedding model's folder (default: as for `tritonrag serve`)")
    add("--model", choices=MODELS, default=GENERATOR, help="what to ask")
    add("--speed", type=float, default=60.0, help="how many seconds of the trace go by in one")
    add("--seconds", type=float, default=120.0, help="how long to replay")
    add("--start-s", type=float, default=0.0, help="second of the trace to begin at")
    add("--num-passages", type=int, help="passages to retrieve (default: the server's)")
    add("--max-tokens", type=int, help="longest answer (default: the server's)")
    add("--timeout-s", type=float, default=30.0, help="for one question")
    add("--seed", type=int, default=0, help="of the texts")
    add("--output", type=Path, help="folder for the record; without it the page is printed")
    add("--name", default="trace-replay", help="file name of the record, without ending")
    return parser


if __name__ == "__main__":
    main()
