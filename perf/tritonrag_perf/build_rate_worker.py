"""One build of an index, as `tritonrag index build` does it, in a process of its own that tells where the time went.

    python -m tritonrag_perf.build_rate_worker --passages FILE.jsonl --output DIR --embedder DIR --workers N

writes one line of JSON: `job_s` of all of it, `build_s` of embedding and writing as the command tells it, the seconds of each step.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_OPENING: Final = "opening the embedding model"
_EMBEDDING: Final = "embedding"  # as the build announces it


class TimedSteps:
    """The steps that a build announces, each with its seconds; a step that is announced again goes on."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._running: str | None = None
        self._since_s = 0.0

    def step(self, text: str) -> None:
        """The step before is done, this one begins."""
        now_s = self._clock()
        if self._running is not None:
            self._seconds[self._running] = self._seconds.get(self._running, 0.0) + now_s - self._since_s
        self._running, self._since_s = text, now_s

    def update(self, done: int, total: int | None = None, *, detail: str = "") -> None:
        """Of no interest here."""

    def note(self, text: str) -> None:
        """What the command would tell belongs into the log."""
        sys.stderr.write(f"{text}\n")

    def finish(self) -> dict[str, float]:
        """The last step is done; the seconds of all, in order."""
        if self._running is not None:
            self.step(self._running)
        return dict(self._seconds)


def dealt_out(steps_s: Mapping[str, float], *, opening_s: float) -> dict[str, float]:
    """The steps with the first two set right: "embedding" is announced when the first passages are embedded, not before."""
    (_, first_s), *others = steps_s.items()
    found = {_OPENING: opening_s, _EMBEDDING: first_s - opening_s}
    for name, seconds in others:
        found[name] = found.get(name, 0.0) + seconds
    return found


def main() -> None:
    """Build and tell."""
    parser = argparse.ArgumentParser(prog="tritonrag_perf.build_rate_worker", description=__doc__)
    parser.add_argument("--passages", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--workers", type=int, required=True)
    options = parser.parse_args()

    # As the command imports them: when it knows what is to be done.
    from tritonrag.indexing import IndexJob, run_job  # noqa: PLC0415
    from tritonrag.settings import settings_from  # noqa: PLC0415

    settings = settings_from(index=options.output, embedder=options.embedder)
    job = IndexJob(settings=settings, paths=(options.passages,), workers=options.workers)
    steps = TimedSteps()
    began_s = time.perf_counter()
    summary = run_job(job, steps).summary
    job_s = time.perf_counter() - began_s
    found = {
        "passages": summary.passages,
        "kinds": sorted({segment.kind for segment in summary.segments}),
        "job_s": job_s,
        "build_s": summary.elapsed_s,
        "steps_s": dealt_out(steps.finish(), opening_s=job_s - summary.elapsed_s),
    }
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
