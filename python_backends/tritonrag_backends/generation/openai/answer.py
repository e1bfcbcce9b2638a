"""From the server's pieces to our deltas: stop words cut, the end told once."""

from collections.abc import Sequence

from tritonrag_backends.generation.engine import Delta, Usage
from tritonrag_backends.generation.openai.chunks import Piece
from tritonrag_backends.generation.stop_words import StopWords
from tritonrag_client.contract import FinishReason


class Answer:
    """One answer while it comes."""

    def __init__(self, stop_words: Sequence[str]) -> None:
        self._stop_words = StopWords(stop_words)
        self._finish_reason: FinishReason | None = None
        self._degraded = ""
        self.usage: Usage | None = None

    @property
    def cut(self) -> bool:
        """Whether it ended at a stop word that the server wrote on after."""
        return self._stop_words.found is not None

    @property
    def ended(self) -> bool:
        """Whether all its text is here."""
        return self._finish_reason is not None

    def push(self, piece: Piece) -> str:
        """The text that can be passed on with this piece; after the end there is none, but a count of tokens may still come."""
        self.usage = piece.usage or self.usage
        if self.ended:
            return ""
        text = self._stop_words.push(piece.text)
        self._finish_reason, self._degraded = ("stop", "") if self.cut else (piece.finish_reason, piece.degraded)
        return text

    def last(self) -> Delta:
        """The last delta."""
        held = "" if self.cut else self._stop_words.flush()
        return Delta(text=held, finish_reason=self._finish_reason, degraded=self._degraded, usage=self.usage)
