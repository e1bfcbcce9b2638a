"""The serving side's settings as a command sees them: the environment, and options over it."""

import os
from pathlib import Path

from tritonrag_backends.environment import ENV_PREFIX
from tritonrag_backends.settings import Settings, load_settings

STATE = Path(".tritonrag")  # what the commands make lies here, below the current folder, unless told otherwise


def settings_from(*, index: Path | None = None, embedder: Path | None = None, **leaves: object) -> Settings:
    """The settings in the environment, with what is given (not None) put over it; `leaves` by name: generator_engine="openai".

    Raises BadRequestError that names the variable, its value and the way out; an option has its leaf's variable.
    """
    given = {"index": index, "embedder_model": embedder, **leaves}
    over = {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in given.items() if value is not None}
    return load_settings({**os.environ, **over})
