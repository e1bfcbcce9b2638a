"""What has to hold between an ensemble and the models that it is composed of. Not a test: `flaws` finds what Triton would refuse.

And what Triton would accept and answer wrongly: an input that the ensemble demands although no model needs it, or the reverse.
"""

from collections.abc import Iterator, Mapping
from typing import Any

ENSEMBLE = "ensemble"


def flaws(configs: Mapping[str, Any]) -> list[str]:
    """What is wrong with the configurations of one profile, by model; empty where all is well."""
    return [
        f"{name}: {flaw}"
        for name, config in configs.items()
        for flaw in (*_own_flaws(name, config), *(_wiring_flaws(config, configs) if is_ensemble(config) else ()))
    ]


def is_ensemble(config: Any) -> bool:
    return bool(config.platform == ENSEMBLE)


def _own_flaws(name: str, config: Any) -> Iterator[str]:
    if config.name != name:
        yield f"its name is {config.name!r}"
    if is_ensemble(config) == bool(config.backend):
        yield f"its backend is {config.backend!r}, and its platform {config.platform!r}"
    for kind, tensors in (("input", config.input), ("output", config.output)):
        names = [tensor.name for tensor in tensors]
        if len(set(names)) < len(names):
            yield f"an {kind} is there twice: {names}"


def _wiring_flaws(ensemble: Any, configs: Mapping[str, Any]) -> Iterator[str]:
    """Follow the tensors from step to step, in their order in the file."""
    known = {tensor.name: tensor for tensor in ensemble.input}
    needs: dict[str, list[bool]] = {name: [] for name in known}
    for step in ensemble.ensemble_scheduling.step:
        model = configs.get(step.model_name)
        if model is None:
            yield f"there is no model {step.model_name}"
            continue
        if 0 < model.max_batch_size < ensemble.max_batch_size:
            yield f"{step.model_name} takes {model.max_batch_size} rows, and the ensemble {ensemble.max_batch_size}"
        yield from _input_flaws(step, model, known, needs)
        yield from _output_flaws(step, model, known)
    for name, optional in needs.items():
        given = next(tensor for tensor in ensemble.input if tensor.name == name)
        if not optional:
            yield f"no model takes the input {name}"
        elif given.optional != all(optional):
            yield f"the input {name} is {'' if given.optional else 'not '}optional, unlike the models' that it goes to"
    for output in ensemble.output:
        if output.name not in known or output.name in needs:
            yield f"no model gives the output {output.name}"
        else:
            yield from _differences(output.name, output, known[output.name])


def _input_flaws(step: Any, model: Any, known: Mapping[str, Any], needs: dict[str, list[bool]]) -> Iterator[str]:
    inputs = {tensor.name: tensor for tensor in model.input}
    for name, tensor in inputs.items():
        if name not in step.input_map and not tensor.optional:
            yield f"{step.model_name} gets no {name}, which it needs"
    for name, source in step.input_map.items():
        if name not in inputs:
            yield f"{step.model_name} has no input {name}"
        elif source not in known:
            yield f"{step.model_name} gets {source}, which no step before it gives"
        else:
            yield from _differences(f"{step.model_name}'s {name}", inputs[name], known[source])
            if source in needs:
                needs[source].append(bool(inputs[name].optional))


def _output_flaws(step: Any, model: Any, known: dict[str, Any]) -> Iterator[str]:
    outputs = {tensor.name: tensor for tensor in model.output}
    for name, target in step.output_map.items():
        if name not in outputs:
            yield f"{step.model_name} has no output {name}"
        elif target in known:
            yield f"{step.model_name} gives {target}, which is there already"
        else:
            known[target] = outputs[name]


def _differences(what: str, one: Any, other: Any) -> Iterator[str]:
    if one.data_type != other.data_type:
        yield f"{what} differs in its type"
    dims = list(zip(one.dims, other.dims, strict=False))
    if len(one.dims) != len(other.dims) or any(a != b and -1 not in (a, b) for a, b in dims):
        yield f"{what} differs in its dims: {list(one.dims)} and {list(other.dims)}"
