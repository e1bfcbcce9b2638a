"""Runs the Locust scenario at one rate, in a process of its own: gevent patches whatever it shares a process with."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tritonrag_client.errors import InternalError, NotFoundError, UnavailableError
from tritonrag_client.options import AnswerModel
from tritonrag_perf.goodput_run import Limits, TrafficRun, sum_up
from tritonrag_perf.goodput_traffic import Mix, Sample, read_samples
from tritonrag_perf.scrape_use import children_cpu_s

SCENARIO: Final = Path(__file__).parents[1] / "locust" / "mixed.py"
_MIX: Final = Mix()
_LIMITS: Final = Limits()
_START_S: Final = 60.0  # an ample allowance for Locust's start and end


def _reached(samples: list[Sample], url: str) -> list[Sample]:
    """The samples, unless the server is not there at all: no rate tells anything then."""
    if samples and all(sample.code == UnavailableError.code for sample in samples):
        raise UnavailableError(f"no request reached the server at {url}; is it running, and is this its gRPC port?")
    return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is sent, and how each run is judged. A run lasts `warm_up_s`, which does not count, and `seconds`."""

    url: str
    questions: tuple[str, ...]
    mix: Mix = _MIX
    limits: Limits = _LIMITS
    seconds: float = 10.0
    warm_up_s: float = 2.0
    answer_model: AnswerModel = "rag"
    timeout_s: float = 10.0
    seed: int = 0
    scenario: Path = SCENARIO

    def run(self, rate_per_s: float, *, number: int = 0) -> TrafficRun:
        """Send `rate_per_s` requests a second; each `number` has times and questions of its own.

        Raises NotFoundError where Locust or the scenario is missing, UnavailableError where no request reached the server,
        InternalError where Locust fails.
        """
        if find_spec("locust") is None:
            raise NotFoundError("mixed traffic needs Locust, which is not installed; `pip install 'tritonrag[perf]'`")
        if not self.scenario.is_file():
            raise NotFoundError(f"{self.scenario} is not there; it is no part of the wheel: run this from a checkout")
        with tempfile.TemporaryDirectory(prefix="tritonrag-perf-") as folder:
            questions, samples = Path(folder) / "questions.txt", Path(folder) / "samples.jsonl"
            questions.write_text("\n".join(self.questions), encoding="utf-8")
            began_s, cpu_began_s = time.monotonic(), children_cpu_s()
            options = [*self._options(rate_per_s), "--seed", str(self.seed + number)]
            self._execute([*options, "--questions", str(questions), "--samples", str(samples)], folder)
            cores = (children_cpu_s() - cpu_began_s) / (time.monotonic() - began_s)
            return sum_up(
                _reached(read_samples(samples), self.url),
                self.limits,
                rate_per_s=rate_per_s,
                warm_up_s=self.warm_up_s,
                seconds=self.seconds,
                client_cores=cores,
            )

    def _options(self, rate_per_s: float) -> list[str]:
        options: dict[str, object] = {
            "--url": self.url,
            "--rate": rate_per_s,
            "--seconds": self.warm_up_s + self.seconds,
            "--mix": self.mix,
            "--answer-model": self.answer_model,
            "--timeout-s": self.timeout_s,
        }
        return [str(part) for pair in options.items() for part in pair]

    def _execute(self, options: Sequence[str], folder: str) -> None:
        """Run Locust in an empty folder, and without its variables, so that no configuration of its own is found."""
        locust = [sys.executable, "-m", "locust", "-f", str(self.scenario), "--headless", "-u", "1"]
        quiet = ["--loglevel", "ERROR", "--only-summary", "--exit-code-on-error", "0"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
        try:
            result = subprocess.run(
                [*locust, *quiet, *options],
                cwd=folder,
                env={**environment, "HOME": folder},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.warm_up_s + self.seconds + self.timeout_s + _START_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InternalError("Locust had not ended long after its time; does the server still answer?") from error
        if result.returncode:
            last = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise InternalError(f"Locust ended with status {result.returncode}: {last}")
