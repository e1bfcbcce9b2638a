"""NVIDIA's perf_analyzer, run for one load."""

import re
import signal
import tempfile
import threading
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired

from tritonrag.stop_signals import StopSignals
from tritonrag_client.errors import (
    DeniedError,
    InternalError,
    NotFoundError,
    RagError,
    UnavailableError,
    parse_error,
)
from tritonrag_perf.load import Load, Windows
from tritonrag_perf.measurement import Measurement, read_first_responses, read_report, read_request_count
from tritonrag_perf.perf_analyzer_setup import environment, find_binary, link_libraries, read_version
from tritonrag_perf.scrape_use import children_cpu_s
from tritonrag_perf.server_time import OPEN_FOR_MEASURING, RESTRICTED

_UNSTABLE = "Failed to obtain stable measurement"
_NO_REQUEST_ENDED = (
    "failed to find the requested model version"  # what it says of a window in which no request was completed
)
_LONGER = 4  # times as long is the next window then
_LONGEST_WINDOW_S = 60.0
_ANY_STABILITY = 1e6  # per cent: the first three windows are taken as they are
_REQUEST_FAILED = re.compile(r"had error: (?P<message>.*)")
_START_S = 120.0  # an ample allowance for connecting, reading the input file, and answers still open at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class PerfAnalyzer:
    """A perf_analyzer that runs on this machine. `libraries` is a folder of links to what its loader misses."""

    binary: Path
    libraries: Path
    version: str

    @classmethod
    def locate(cls, state: Path, binary: Path | None = None) -> "PerfAnalyzer":
        """Find the program (or take `binary`), link its libraries under the folder `state`, and see that it starts.

        Raises NotFoundError, with the way out, where there is none or it does not run here.
        """
        binary = binary or find_binary()
        libraries = link_libraries(state / "perf_analyzer_libraries")
        return cls(binary=binary, libraries=libraries, version=read_version(binary, libraries))

    def run(self, load: Load, windows: Windows, *, url: str, input_data: Path) -> Measurement:
        """Measure `load` against the gRPC endpoint `url` ("host:port") with the questions of `input_data`.

        Where the machine is too noisy for the stability asked for, measures once more without that condition and says so
        in the result; where no request ends within a window, measures with longer ones.
        Raises the request's own error where a request fails, UnavailableError where the server can't be reached,
        NotFoundError for an unknown model, InternalError for anything else.
        """
        command = [str(self.binary), "-u", url, "--input-data", str(input_data), *load.options()]
        with tempfile.TemporaryDirectory(prefix="tritonrag-perf-") as folder:
            while True:
                try:
                    return self._measure_anyhow(command, load, windows, Path(folder))
                except _NoRequestEndedError:
                    longer_s = _LONGER * windows.window_s
                    if windows.window_requests is not None or longer_s > _LONGEST_WINDOW_S:
                        raise
                    windows = replace(windows, window_s=longer_s)

    def _measure_anyhow(self, command: list[str], load: Load, windows: Windows, folder: Path) -> Measurement:
        """With the stability asked for, else with any."""
        measurement = self._measure(command, load, windows, folder)
        if measurement is None:
            lenient = replace(windows, stability_percent=_ANY_STABILITY)
            measurement = self._measure(command, load, lenient, folder)
        if measurement is None:
            raise InternalError(f"no stable measurement of {load} even with any stability allowed; measure for longer")
        return measurement

    def _measure(self, command: list[str], load: Load, windows: Windows, folder: Path) -> Measurement | None:
        """One run of the program; None where it found no stable measurement."""
        report, profile = folder / "report.csv", folder / "profile.json"
        command = [*command, *windows.options(), "-f", str(report)]
        if load.decoupled:  # only there is the first response not the last; the export is large
            command += ["--profile-export-file", str(profile)]
        began, cpu_began = time.monotonic(), children_cpu_s()
        console = self._execute(command, limit_s=_START_S + windows.max_windows * max(windows.window_s, 60.0))
        cores = (children_cpu_s() - cpu_began) / (time.monotonic() - began)
        if console is None:
            return None
        rate, latency = read_report(report)
        return Measurement(
            requests=read_request_count(console),
            requests_per_s=rate,
            latency=latency,
            first_response=read_first_responses(profile) if load.decoupled else None,
            stable=windows.stability_percent < _ANY_STABILITY,
            client_cores=cores,
        )

    def _execute(self, command: list[str], *, limit_s: float) -> str | None:
        """Run it and return what it printed; None where it found no stable measurement."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        with ExitStack() as ends:
            with StopSignals() if in_main_thread else nullcontext() as stops:  # struck within, it would be left running
                process = ends.enter_context(
                    Popen(
                        command, env=environment(self.libraries), stdout=PIPE, stderr=PIPE, text=True, errors="replace"
                    )
                )
                ends.callback(process.wait)  # subprocess itself does not wait for its end after Ctrl-C
                ends.callback(process.kill)
            if stops is not None and stops.received:
                signal.raise_signal(stops.received[0])
            try:
                output, complaints = process.communicate(timeout=limit_s)
            except TimeoutExpired as error:
                raise InternalError(
                    f"perf_analyzer had not ended after {limit_s:.0f} s; does the server still answer?"
                ) from error
        if process.returncode == 0:
            return output
        if _UNSTABLE in complaints:
            return None
        raise explain_failure(process.returncode, complaints)


class _NoRequestEndedError(InternalError):
    """No request was completed within a window."""


def explain_failure(returncode: int, stderr: str) -> RagError:
    """The error behind a failed run: that of the request, or of the connection."""
    if RESTRICTED in stderr:
        return DeniedError(OPEN_FOR_MEASURING)
    failed = _REQUEST_FAILED.search(stderr)
    if failed is not None:
        message = failed["message"].strip()
        return parse_error(message) or InternalError(f"a request failed while measuring: {message}")
    reason = stderr.strip()[-300:]
    if "failed to connect" in stderr:
        return UnavailableError(
            f"perf_analyzer can't reach the server: {reason}; is it running, and is this its gRPC port?"
        )
    if "unknown model" in stderr:
        return NotFoundError(f"perf_analyzer was told to measure a model that is not served: {reason}")
    if _NO_REQUEST_ENDED in stderr:
        return _NoRequestEndedError("no request was completed within a window; measure with longer windows")
    return InternalError(f"perf_analyzer ended with status {returncode}: {reason or 'no message'}")
