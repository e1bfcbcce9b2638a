"""What the stand-in does, and what was done to it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Script:
    """`texts` are what each token adds; a text that ends in U+FFFD stands for half a character. `hangs`: wait after the last."""

    texts: tuple[str, ...] = ("It ", "is ", "so.")
    reason: str | None = "stop"
    hangs: bool = False
    fails_request: bool = False
    dead: bool = False
    refuses_model: bool = False
    tokenizer: Any = None
    llm_arguments: dict[str, Any] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    aborted: int = 0
    running: int = 0
    shut_down: int = 0
    visible_devices: str | None = None


SCRIPT = Script()
