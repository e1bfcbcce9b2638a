"""The options of `ask` that say how the answer is written, each with its environment variable."""

from pathlib import Path
from typing import Annotated

import typer

Temperature = Annotated[
    float | None,
    typer.Option(
        envvar="TRITONRAG_TEMPERATURE",
        help="0 takes the likeliest token each time. (default: the server's)",
        show_default=False,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        envvar="TRITONRAG_TOP_P",
        help="Draw from the likeliest tokens up to this probability. (default: the engine's)",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(envvar="TRITONRAG_SEED", help="The same seed draws the same answer.", show_default=False),
]
StopWords = Annotated[
    list[str] | None,
    typer.Option(
        "--stop-word",
        envvar="TRITONRAG_STOP_WORD",
        metavar="TEXT",
        help="End the answer before this text; repeat for several (in the variable: between blanks).",
        show_default=False,
    ),
]
LoraName = Annotated[
    str | None,
    typer.Option(
        envvar="TRITONRAG_LORA_NAME", metavar="NAME", help="Adapter of the language model.", show_default=False
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", envvar="TRITONRAG_STRICT", help="Rather fail than answer where the server gives something up."
    ),
]
History = Annotated[
    Path | None,
    typer.Option(
        envvar="TRITONRAG_HISTORY",
        metavar="FILE",
        help='What was said before: a JSON list of {"role", "content"}; - reads stdin.',
        show_default=False,
    ),
]
