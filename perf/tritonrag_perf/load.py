"""What is asked of the server, and for how long: the options of one measurement."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from tritonrag_client.contract import EMBEDDER, GENERATOR, RAG, RETRIEVE
from tritonrag_client.errors import BadRequestError

MODELS: Final = (EMBEDDER, RETRIEVE, GENERATOR, RAG)  # those that a question alone can drive
DECOUPLED: Final = frozenset({GENERATOR, RAG})  # these answer over gRPC streaming only
_SENDING_THREADS: Final = 4
_START_S: Final = 2.0  # of perf_analyzer, with the answers still open at its end
_SHORTEST_WINDOW_S: Final = 0.1  # below that a window at one client holds too few requests for a percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`concurrency` clients of `model`, each sending its next request, of `batch` questions, when the last is answered.

    With `rate_per_s` an open loop instead: so many requests a second, at random times (Poisson), whatever is answered;
    `concurrency` is then perf_analyzer's number of sending threads.
    """

    model: str
    concurrency: int
    batch: int = 1
    rate_per_s: float | None = None

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise BadRequestError(f"the model is {self.model!r}; questions can be sent to one of {', '.join(MODELS)}")
        if self.concurrency < 1:
            raise BadRequestError(f"concurrency is {self.concurrency}; give 1 or more")
        if self.batch < 1 or (self.batch > 1 and self.decoupled):
            raise BadRequestError(f"batch is {self.batch}; give 1 or more, and 1 for a model that streams")
        if self.rate_per_s is not None and not 0 < self.rate_per_s < math.inf:
            raise BadRequestError(
                f"the request rate is {self.rate_per_s:g}; give a number of requests a second above 0"
            )

    def __str__(self) -> str:
        together = f", {self.batch} questions a request" if self.batch > 1 else ""
        if self.rate_per_s is not None:
            return f"{self.model} at {self.rate_per_s:g} requests/s{together}"
        return f"{self.model} at {self.concurrency} client{'s' if self.concurrency > 1 else ''}{together}"

    @property
    def pressure(self) -> str:
        """How hard it asks, for a narrow column: clients, or requests a second, and the questions of a request."""
        pressure = str(self.concurrency) if self.rate_per_s is None else f"{self.rate_per_s:g}/s"
        return f"{pressure}, {self.batch} each" if self.batch > 1 else pressure

    @property
    def decoupled(self) -> bool:
        """Whether one request may have many responses."""
        return self.model in DECOUPLED

    def options(self) -> list[str]:
        """perf_analyzer's options for it.

        Calls are synchronous where the protocol allows it: asynchronous ones, with perf_analyzer's own number of threads, had
        0.7 (1 client, one pair of runs) and 0.8 (32 clients, two pairs) of the rate on two cores. A decoupled model needs
        them; as many threads as clients give each client its own stream.
        """
        options = ["-m", self.model, "-i", "grpc"]
        if self.rate_per_s is None:
            options += ["--concurrency-range", str(self.concurrency)]
        else:
            options += ["--request-rate-range", f"{self.rate_per_s:g}", "--request-distribution", "poisson"]
        if self.batch > 1:
            options += ["-b", str(self.batch)]
        if self.decoupled:
            options += ["--streaming"]
        if self.decoupled or self.rate_per_s is not None:
            options += ["--async", "--max-threads", str(self.concurrency)]
        return options


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """When a measurement is done: three windows in a row whose rate and latency differ by at most `stability_percent`.

    A window lasts `window_s` seconds, or as long as `window_requests` requests take where that is given.
    Stability is judged by the mean latency, or by `percentile`. After `max_windows` it is given up.
    """

    window_s: float = 2.0
    window_requests: int | None = None
    stability_percent: float = 25.0
    percentile: int | None = None
    max_windows: int = 6

    def __post_init__(self) -> None:
        if not self.window_s >= _SHORTEST_WINDOW_S:
            raise BadRequestError(f"window_s is {self.window_s}; give {_SHORTEST_WINDOW_S} or more")
        if self.window_requests is not None and self.window_requests < 1:
            raise BadRequestError(f"window_requests is {self.window_requests}; give 1 or more, or leave it out")
        if self.stability_percent <= 0:
            raise BadRequestError(f"stability_percent is {self.stability_percent}; give a number above 0")
        if self.percentile is not None and not 0 < self.percentile < 100:  # noqa: PLR2004 - per cent
            raise BadRequestError(f"percentile is {self.percentile}; give 1 to 99, or leave it out for the mean")
        if self.max_windows < 3:  # noqa: PLR2004 - perf_analyzer compares three
            raise BadRequestError(
                f"max_windows is {self.max_windows}; stability is judged on 3 windows, so give 3 or more"
            )

    @property
    def mode(self) -> Literal["time_windows", "count_windows"]:
        """perf_analyzer's name for what ends a window."""
        return "time_windows" if self.window_requests is None else "count_windows"

    def options(self) -> list[str]:
        """perf_analyzer's options for it."""
        options = ["--measurement-mode", self.mode, "--measurement-interval", str(round(self.window_s * 1000))]
        if self.window_requests is not None:
            options += ["--measurement-request-count", str(self.window_requests)]
        if self.percentile is not None:
            options += ["--percentile", str(self.percentile)]
        return [
            *options,
            "--stability-percentage",
            f"{self.stability_percent:g}",
            "--max-trials",
            str(self.max_windows),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure: every model with every number of clients and at every rate, each with every size of request that it takes.

    `rates_per_s` are requests a second of an open loop. `stream` and `max_tokens` go to the models that generate.
    """

    models: tuple[str, ...] = (RETRIEVE, RAG)
    concurrencies: tuple[int, ...] = (1, 32)
    rounds: int = 3
    windows: Windows = Windows()
    stream: bool = True
    max_tokens: int | None = None
    rates_per_s: tuple[float, ...] = ()
    batches: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadRequestError(f"rounds is {self.rounds}; give 1 or more")
        if not self.loads():
            raise BadRequestError("nothing to measure; give at least one model and one concurrency")

    def loads(self) -> tuple[Load, ...]:
        """Every load, each once; models that stream get one question a request. Raises BadRequestError for one that can't be."""
        pressures: list[tuple[int, float | None]] = [(c, None) for c in self.concurrencies]
        pressures += [(_SENDING_THREADS, rate) for rate in self.rates_per_s]
        return tuple(
            dict.fromkeys(
                Load(model=model, concurrency=concurrency, rate_per_s=rate, batch=batch)
                for model in self.models
                for concurrency, rate in pressures
                for batch in self.batches
                if batch == 1 or model not in DECOUPLED
            )
        )

    def expected_s(self) -> tuple[float, float]:
        """How long measuring takes, at least and at most, in seconds, where a question takes no longer than a window.

        perf_analyzer ends at three windows that agree; where none do, three more are measured without that condition.
        """
        measurements, window_s = len(self.order()), self.windows.window_s
        least = 3 * window_s + _START_S
        return measurements * least, measurements * (least + self.windows.max_windows * window_s + _START_S)

    def order(self) -> list[Load]:
        """The loads in the order of measuring: every other round runs backwards, so that a drift favours none."""
        loads = self.loads()
        return [load for number in range(self.rounds) for load in (loads if number % 2 == 0 else reversed(loads))]

    def command(self, source: str = "--index DIR") -> str:
        """How to do it again, without the paths and ports of one machine. `source` is the options that give the questions."""
        windows = self.windows
        options: list[tuple[str, object]] = [
            ("--models", " ".join(self.models)),
            ("--concurrency", " ".join(map(str, self.concurrencies)) or None),
            ("--request-rate", " ".join(f"{rate:g}" for rate in self.rates_per_s) or None),
            ("--batch", " ".join(map(str, self.batches)) if self.batches != (1,) else None),
            ("--rounds", self.rounds),
            ("--window-s", f"{windows.window_s:g}"),
            ("--window-requests", windows.window_requests),
            ("--stability-percent", f"{windows.stability_percent:g}"),
            ("--percentile", windows.percentile),
            ("--max-windows", windows.max_windows),
            ("--max-tokens", self.max_tokens),
        ]
        given = " ".join(f"{name} {value}" for name, value in options if value is not None)
        start = f"python -m tritonrag_perf.sweep --url HOST:GRPC_PORT {source} --output DIR"
        return f"{start} {given}{'' if self.stream else ' --no-stream'}"
