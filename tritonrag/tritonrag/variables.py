"""Environment variables with our prefix that nothing reads are misspelt ones: they are refused, not ignored."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from tritonrag_backends.environment import is_ours
from tritonrag_client.errors import BadRequestError


def variables_of(command: Any) -> Iterator[str]:  # noqa: ANN401 - typer's own copy of click has no public types
    """The variables of a click command's options and of those of the commands below it."""
    for parameter in command.params:
        if isinstance(parameter.envvar, str):
            yield parameter.envvar
    for inner in getattr(command, "commands", {}).values():
        yield from variables_of(inner)


def refuse_unknown(environment: Mapping[str, str], options: Iterable[str]) -> None:
    """Raises BadRequestError for the first variable with our prefix that is neither an option's nor a setting's."""
    given = {name for name, value in environment.items() if is_ours(name, value)}
    unknown = sorted(given.difference(options))
    if not unknown:
        return
    from tritonrag_backends.settings import known_variables  # noqa: PLC0415 - heavy, and most environments have none

    known = known_variables().union(options)
    for name in unknown:
        if name not in known:
            near = get_close_matches(name, sorted(known), n=1)
            hint = f"did you mean {near[0]}?" if near else "`tritonrag COMMAND --help` names those there are"
            raise BadRequestError(
                f"the environment variable {name} is not one of ours, so nothing would heed it; {hint}"
            )
