"""A record of `tritonrag bench` as it is read back for a comparison; records from before a field was there are understood."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_perf.load import Load

Figure = Literal["questions_per_s", "p50_ms", "p99_ms", "server_cpu_ms"]
FIGURES: Final[tuple[Figure, ...]] = ("questions_per_s", "p50_ms", "p99_ms", "server_cpu_ms")
MORE_IS_BETTER: Final = frozenset({"questions_per_s"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run. `conditions` are what must be the same for a comparison, by name, in words; `rounds` has each round of each load.

    `failed` loads have rounds that came to nothing, and `unstable` is how many of each load's did not settle.
    """

    conditions: Mapping[str, str]
    rounds: Mapping[Load, Mapping[Figure, tuple[float, ...]]]
    failed: frozenset[Load] = frozenset()
    unstable: Mapping[Load, int]


def read_record(path: Path) -> Record:
    """The record in a file. Raises BadRequestError where it can't be read or is none of ours."""
    try:
        return parse_record(json.loads(path.read_bytes()))
    except OSError as error:
        raise BadRequestError(f"{path} can't be read: {error.strerror}; give the JSON of two runs") from error
    except (KeyError, TypeError, ValueError, AttributeError, RagError) as error:
        raise BadRequestError(f"{path} is no record of `tritonrag bench`: {error!r}; give the JSON it wrote") from error


def parse_record(data: Any) -> Record:  # noqa: ANN401 - JSON
    """The record in its JSON. Raises KeyError, TypeError, ValueError or RagError where it is none of ours."""
    rounds: dict[Load, list[dict[Figure, float]]] = {}
    unstable: dict[Load, int] = {}
    for one in data["rounds"]:
        load = Load(**one["load"])
        rounds.setdefault(load, []).append(_figures(one))
        unstable[load] = unstable.get(load, 0) + (not one["measurement"]["stable"])
    machine = data["machine"]
    return Record(
        conditions={
            "processor": str(machine["cpu"]),
            "cores": str(machine["cores"]),
            "memory": f"{machine['memory_gib']} GiB",
            "system": str(machine["system"]),
            "questions": str(data["questions"]),
            "answers streamed": str(data["stream"]),
        },
        rounds={load: _by_figure(ones) for load, ones in rounds.items()},
        failed=frozenset(Load(**failure["load"]) for failure in data.get("failures", ())),
        unstable=unstable,
    )


def _figures(one: Mapping[str, Any]) -> dict[Figure, float]:
    measured, use = one["measurement"], one.get("use") or {}
    figures: dict[Figure, float | None] = {
        "questions_per_s": measured["requests_per_s"],
        "p50_ms": measured["latency"]["p50_ms"],
        "p99_ms": measured["latency"]["p99_ms"],
        "server_cpu_ms": use.get("server_cpu_ms"),
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def _by_figure(rounds: Iterable[Mapping[Figure, float]]) -> dict[Figure, tuple[float, ...]]:
    """Each figure over the rounds; those that no round has are left out."""
    ones = list(rounds)
    columns: dict[Figure, tuple[float, ...]] = {
        name: tuple(one[name] for one in ones if name in one) for name in FIGURES
    }
    return {name: values for name, values in columns.items() if values}
