"""Which stages a server has, and which models' processes stand behind each: read from the repository as it is served."""

from collections.abc import Iterable
from pathlib import Path

from tritonrag.repository import CONFIG, read_config
from tritonrag.supervising.canaries import STAGES
from tritonrag.supervising.judge import Stage


def stages_of(repository: Path, models: Iterable[str]) -> list[Stage]:
    """The stages among the models that were loaded by name, and those that they are composed of."""
    loaded = frozenset().union(*(_parts(repository, model) for model in models))
    return [Stage(name=name, runs=_runs(repository, name)) for name in STAGES if name in loaded]


def _parts(repository: Path, model: str) -> frozenset[str]:
    """The model, and every model that it is composed of."""
    return frozenset({model}).union(*(_parts(repository, step) for step in _steps(repository, model)))


def _runs(repository: Path, model: str) -> frozenset[str]:
    """The model itself, or the models at the ends of an ensemble, which may hold ensembles."""
    steps = _steps(repository, model)
    return frozenset().union(*(_runs(repository, step) for step in steps)) if steps else frozenset({model})


def _steps(repository: Path, model: str) -> list[str]:
    path = repository / model / CONFIG
    return [step.model_name for step in read_config(path).ensemble_scheduling.step] if path.is_file() else []
