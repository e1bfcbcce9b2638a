"""Bulk indexing against the raw encoder, in one run with rounds interleaved: `python -m tritonrag_perf.build_rate`.

    python -m tritonrag_perf.build_rate --index DIR --output docs/benchmarks [--passages 2000] [--rounds 3]

Takes twice --passages passages out of an index, spread evenly over it and mixed, and builds an index of half of them and one of
all, as `tritonrag index build FILE.jsonl` does it with its defaults, each in a process of its own. Before and after the two the
same encoder embeds the same texts in as many single-threaded processes as the build has embedders, and does nothing else
(`build_rate_raw.py`). A build has costs that do not grow with its passages: starting, opening the model, embedding the questions
to which an index is tuned; what the larger build takes longer than the smaller leaves these out.
Writes NAME.json and NAME.md into the folder --output, anew after each round.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tritonrag_backends.environment import ENV_PREFIX
from tritonrag_backends.index import Index
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, InternalError, RagError
from tritonrag_export.indexing.encoding import embedding_text
from tritonrag_perf.build_rate_raw import RawEncoders
from tritonrag_perf.build_rate_report import BuildRate, BuildRound, BuildRun, write_build_rate
from tritonrag_perf.machine import Machine
from tritonrag_perf.sweep import exit_on_signal

_SEED: Final = 0
_LONGEST_BUILD_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Both sides, ready. `half` and `whole` are JSONL files of passages, `texts` what is embedded of those of `whole`."""

    raw: RawEncoders
    embedder: Path
    workers: int
    folder: Path
    texts: Sequence[str]
    half: Path
    whole: Path

    def round(self, number: int) -> BuildRound:
        """Half of the texts raw, both builds, the other half raw; every other round the larger build first.

        Raises InternalError where a build fails.
        """
        middle = len(self.texts) // 2
        before = self.raw.measure(self.texts[:middle])
        order = (self.half, self.whole) if number % 2 else (self.whole, self.half)
        built = {path: self.build(path) for path in order}
        after = self.raw.measure(self.texts[middle:])
        return BuildRound(round=number, raw=(before, after), half=built[self.half], whole=built[self.whole])

    def build(self, passages: Path) -> BuildRun:
        """One build, of which nothing stays. Raises InternalError where it fails."""
        with tempfile.TemporaryDirectory(dir=self.folder) as output:
            command = [sys.executable, "-m", "tritonrag_perf.build_rate_worker", "--passages", str(passages)]
            command += ["--output", str(Path(output) / "index"), "--embedder", str(self.embedder)]
            command += ["--workers", str(self.workers)]
            began_s = time.perf_counter()
            found = _run(command)
            command_s = time.perf_counter() - began_s
            return BuildRun(command_s=command_s, **{**found, "kinds": tuple(found["kinds"])})


def _run(command: list[str]) -> dict[str, Any]:
    """What the process printed. Raises InternalError where it fails or hangs. Our settings of this shell are not its."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_LONGEST_BUILD_S, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        raise InternalError(f"a build failed: {error.stderr.strip()[-500:]}") from error
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise InternalError(f"a build came to nothing: {error}") from error
    return found


def take_passages(index: Path, *, count: int) -> list[Passage]:
    """So many passages of the live version, spread evenly over it, in random order, so that any part of them is like the whole.

    Raises NotFoundError where `index` holds no index, InternalError where it is damaged, BadRequestError where it has too few.
    """
    opened = Index.open(index, fingerprint=None)
    there = opened.manifest.counts.passages
    if there < count:
        raise BadRequestError(f"the index has {there:,} passages and {count:,} are wanted; give fewer with --passages")
    wanted = {number * there // count for number in range(count)}
    taken = [Passage.from_json(data) for place, data in enumerate(opened.all_passages()) if place in wanted]
    random.Random(_SEED).shuffle(taken)  # noqa: S311 - an order, no secret
    return taken


def write_jsonl(path: Path, passages: Sequence[Passage]) -> Path:
    """A file that `tritonrag index build` reads, each passage a document of its own. Returns `path`."""
    with path.open("wb") as file:
        for number, passage in enumerate(passages):
            line = {"id": str(number), **json.loads(passage.to_json())}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return path


def run(options: argparse.Namespace) -> list[Path]:
    """Measure; what was written. Both sides do a tenth of their work before the first round, to be warm."""
    passages = take_passages(options.index, count=2 * options.passages)
    record = BuildRate(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        command=f"python -m tritonrag_perf.build_rate --index DIR --passages {options.passages} --workers {options.workers} "
        f"--rounds {options.rounds} --output DIR",
        workers=options.workers,
        characters=sum(len(embedding_text(one)) for one in passages) / len(passages),
    )
    with (
        tempfile.TemporaryDirectory(prefix="tritonrag-perf-", dir=options.work) as name,
        RawEncoders(options.embedder, processes=options.workers) as raw,
    ):
        folder = Path(name)
        sides = Sides(
            raw=raw,
            embedder=options.embedder.absolute(),
            workers=options.workers,
            folder=folder,
            texts=[embedding_text(one) for one in passages],
            half=write_jsonl(folder / "half.jsonl", passages[: options.passages]),
            whole=write_jsonl(folder / "whole.jsonl", passages),
        )
        _tell("warming up")
        raw.measure(sides.texts[: max(options.workers, options.passages // 10)])
        sides.build(write_jsonl(folder / "few.jsonl", passages[: max(1, options.passages // 10)]))
        written: list[Path] = []
        for number in range(1, options.rounds + 1):
            record = replace(record, rounds=(*record.rounds, sides.round(number)))
            written = write_build_rate(record, options.output, name=options.name)
            _tell(f"round {number} of {options.rounds}: {record.rounds[-1]}")
    return written


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="tritonrag_perf.build_rate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/demo-index"), help="whose passages are taken")
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument(
        "--passages",
        type=int,
        default=2000,
        help="of the smaller build; the larger has twice as many; from 512 on both are tuned to as many questions",
    )
    parser.add_argument("--workers", type=int, default=cores, help="embedders of a build, and raw processes; all cores")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--work", type=Path, help="where indexes are built and removed again; default: for temporary files"
    )
    parser.add_argument("--name", default="build-rate", help="file name of the record, without ending")
    parser.add_argument("--output", type=Path, required=True, help="folder for the record")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and the error's message where something is wrong; rounds that were measured are written."""
    options = _parser().parse_args(argv)
    try:
        for name in ("passages", "workers", "rounds"):
            if getattr(options, name) < 1:
                raise BadRequestError(f"--{name} is {getattr(options, name)}; give 1 or more")
        paths = run(options)
    except RagError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)  # noqa: T201 - a command's result


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, exit_on_signal)  # unwinding ends the processes and removes what was built
    main()
