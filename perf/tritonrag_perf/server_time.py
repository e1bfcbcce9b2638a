"""Where the server spent its time: Triton's own counters, read before and after a load.

The counters include the load's warm-up. A decoupled Python model's compute time ends when it has taken the request in,
not when the answer is complete: see the latency for that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tritonrag_client.errors import DeniedError, UnavailableError

RESTRICTED: Final = "protocol is restricted"  # Triton's words, beside the status UNAVAILABLE
OPEN_FOR_MEASURING: Final = (
    "the server keeps its counters and configurations to itself; start it for measuring with: tritonrag serve"
    " --open-api model-config --open-api statistics"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """A model's counters since it was loaded. Times are sums over requests, in nanoseconds."""

    requests: int
    failures: int
    inferences: int
    executions: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int

    @classmethod
    def from_statistics(cls, statistics: Any) -> "Counters":  # noqa: ANN401 - a protobuf message, untyped
        """From one ModelStatistics message of Triton's gRPC protocol."""
        durations = statistics.inference_stats
        return cls(
            requests=durations.success.count,
            failures=durations.fail.count,
            inferences=statistics.inference_count,
            executions=statistics.execution_count,
            queue_ns=durations.queue.ns,
            input_ns=durations.compute_input.ns,
            infer_ns=durations.compute_infer.ns,
            output_ns=durations.compute_output.ns,
        )

    def since(self, before: "Counters") -> "Counters":
        """What was added. Raises UnavailableError where a counter went down: the model was loaded anew in between."""
        added = {f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(self)}
        if min(added.values()) < 0:
            raise UnavailableError(
                "the server's counters went down while measuring: a model was loaded anew; measure again"
            )
        return Counters(**added)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Means per request over one load, in milliseconds; `batch` is the mean number of rows executed together."""

    model: str
    requests: int
    failures: int
    batch: float
    queue_ms: float
    input_ms: float
    infer_ms: float
    output_ms: float

    @classmethod
    def of(cls, model: str, added: Counters) -> "StageTime":
        """Divide what a load added by its requests; zeros for a model that saw none."""
        ms = 1e-6 / max(added.requests, 1)
        return cls(
            model=model,
            requests=added.requests,
            failures=added.failures,
            batch=added.inferences / max(added.executions, 1),
            queue_ms=added.queue_ns * ms,
            input_ms=added.input_ns * ms,
            infer_ms=added.infer_ns * ms,
            output_ms=added.output_ns * ms,
        )


def stage_times(before: Mapping[str, Counters], after: Mapping[str, Counters]) -> tuple[StageTime, ...]:
    """One StageTime for each model of `after`, in its order. Raises UnavailableError where a model was loaded anew."""
    return tuple(StageTime.of(model, counters.since(before[model])) for model, counters in after.items())


class ServerStatistics:
    """Reads counters from a Triton over gRPC. A context manager. `headers` open what the server restricts."""

    def __init__(self, url: str, *, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._headers = headers
        self._client = InferenceServerClient(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def server_version(self) -> str:
        """Triton's version. Raises UnavailableError, as all of these, and DeniedError where the server restricts what is asked."""
        return str(self._call("get_server_metadata").version)

    def models_of(self, model: str) -> tuple[str, ...]:
        """`model` and, where it is an ensemble, the models that it is made of, in order. Raises UnavailableError."""
        config = self._call("get_model_config", model).config
        inner = [name for step in config.ensemble_scheduling.step for name in self.models_of(step.model_name)]
        return tuple(dict.fromkeys([model, *inner]))

    def counters(self, models: tuple[str, ...]) -> dict[str, Counters]:
        """The counters of each of `models` now. Raises UnavailableError."""
        return {
            model: Counters.from_statistics(self._call("get_inference_statistics", model).model_stats[0])
            for model in models
        }

    def _call(self, method: str, *arguments: str) -> Any:  # noqa: ANN401 - protobuf messages, untyped
        try:
            return getattr(self._client, method)(*arguments, headers=self._headers, client_timeout=self._timeout_s)
        except InferenceServerException as error:
            if RESTRICTED in error.message():
                raise DeniedError(f"{self._url}: {OPEN_FOR_MEASURING}") from error
            raise UnavailableError(
                f"the server at {self._url} does not answer {method}: {error.message()}; is it ready?"
            ) from error
