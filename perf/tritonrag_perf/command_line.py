"""A tool's command as its page tells it: with DIR for the folders, which are everybody's own."""

import shlex
from collections.abc import Sequence
from typing import Final

_FOLDERS: Final = frozenset({"--index", "--embedder", "--output"})


def told(module: str, arguments: Sequence[str]) -> str:
    """The command line of `python -m MODULE` for the page."""
    shown = [
        "DIR" if before in _FOLDERS else argument for before, argument in zip(["", *arguments], arguments, strict=False)
    ]
    return f"python -m {module} {shlex.join(shown)}".rstrip()
