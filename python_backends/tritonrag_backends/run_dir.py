"""The folder that all processes of one server share while it runs: the launcher makes it, and it is gone with the server."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

RUN_DIR: Final = "TRITONRAG_RUN_DIR"  # set by the launcher, not by people


def run_dir(environment: Mapping[str, str] | None = None) -> Path | None:
    """The folder, of mode 0700; None where no launcher of ours started this process."""
    name = (os.environ if environment is None else environment).get(RUN_DIR)
    return Path(name) if name else None
