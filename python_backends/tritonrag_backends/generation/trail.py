"""What is to be told of one answer when it has ended, gathered while it is made."""

from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from tritonrag_backends.generation.engine import Usage
from tritonrag_client.contract import FinishReason

CacheOutcome = Literal["off", "hit", "shared", "miss"]


@dataclass(slots=True, kw_only=True)
class AnswerTrail:
    """One answer's figures; each stage writes its own, and the metrics read them at the end.

    `failure` is the code of the error for which the engine was given up, "" where it was not. Times are seconds since `began_s`
    (monotonic); None for what did not come to pass.
    """

    engine: str
    began_s: float = field(default_factory=monotonic)
    retrieved_after_s: float | None = None
    first_text_after_s: float | None = None
    ended_after_s: float | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    cache: CacheOutcome = "off"
    failure: str = ""
    degraded: bool = False
    passages_used: int = 0
    passages_left_out: int = 0
    citations_kept: int = 0
    citations_removed: int = 0

    def retrieved(self) -> None:
        """The passages are there."""
        self.retrieved_after_s = monotonic() - self.began_s

    def failed(self, code: str) -> None:
        """The engine was given up for an error with this code."""
        self.failure = code

    def text_passed(self) -> None:
        """Some text is on its way to the client; the first time counts."""
        if self.first_text_after_s is None:
            self.first_text_after_s = monotonic() - self.began_s

    def ended(self, finish_reason: FinishReason) -> None:
        """Nothing more comes; the first time counts."""
        if self.finish_reason is None:
            self.finish_reason, self.ended_after_s = finish_reason, monotonic() - self.began_s

    @property
    def seconds_per_token(self) -> float | None:
        """Mean time between two tokens of the answer after the first; None where it was not written here and now."""
        tokens = self.usage.completion_tokens if self.usage else 0
        if (
            self.cache in {"hit", "shared"}
            or self.first_text_after_s is None
            or self.ended_after_s is None
            or tokens <= 1
        ):
            return None
        return (self.ended_after_s - self.first_text_after_s) / (tokens - 1)
