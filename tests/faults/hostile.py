"""What the tests of hostile input share: the server's processes, what no error may tell, a question whose answer is known."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from tests.server.wire import Failure, Wire, request, strings
from tritonrag.launcher import RunningServer
from tritonrag.processes import session_members, stat_fields
from tritonrag_client.contract import decode_sources

QUESTION: Final = "How do I parse a JSON document?"
MODELS: Final = ("embedder", "retriever", "retrieve", "generator", "rag")
DEADLINE_S: Final = 30.0
# A path, a file of Python's or C++'s, its line (JSON's errors tell a line and a column of what was sent), a traceback.
LEAKS: Final = re.compile(r"\.(?:py|cc|cpp|h)\b(?::\d+)?|\bline \d++(?! column)|Traceback|(?<![\w<.])(?:/[\w.-]+){2,}")


def processes(server: RunningServer) -> frozenset[int]:
    """The ids of Triton and its stubs."""
    return frozenset(process.pid for process in session_members(server.pid))


def all_live(pids: frozenset[int]) -> bool:
    """Whether each of these runs; a process that ended and was not read yet has ended."""
    return all(_state(pid) not in {"", "Z", "X"} for pid in pids)


def _state(pid: int) -> str:
    try:
        return stat_fields(Path(f"/proc/{pid}"))[0]
    except OSError:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A question's answers while all was well."""

    ids: tuple[int, ...]
    scores: tuple[float, ...]
    passages: tuple[bytes, ...]
    text: bytes
    sources: tuple[int, ...]

    @classmethod
    def ask(cls, wire: Wire, question: str = QUESTION) -> Self:
        """What `retrieve` finds and `generator` answers now. Fails where either is an error."""
        found = wire.unary(request("retrieve", {"text_input": question}), timeout_s=DEADLINE_S)
        assert isinstance(found, dict), found
        (answered,) = wire.stream(request("generator", {"text_input": question}), timeout_s=DEADLINE_S)
        assert isinstance(answered, dict), answered
        (text,), (sources,) = strings(answered["text_output"]), strings(answered["sources"])
        return cls(
            ids=tuple(np.frombuffer(found["passage_ids"], np.int64).tolist()),
            # Company in a batch moves a score by a bit of its last place.
            scores=tuple(np.frombuffer(found["scores"], np.float32).round(5).tolist()),
            passages=tuple(strings(found["passages"])),
            text=text,
            sources=tuple(source.passage_id for source in decode_sources(sources)),
        )


def require_sound(outputs: Mapping[str, bytes]) -> None:
    """Hold an answer, whatever was asked, to what every answer is: finite, of unit length, in UTF-8, of valid JSON."""
    if "embedding" in outputs:
        vectors = np.frombuffer(outputs["embedding"], np.float32).reshape(-1, 384)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)
    if "scores" in outputs:
        assert np.isfinite(np.frombuffer(outputs["scores"], np.float32)).all()
    for name in ("text_output", "finish_reason", "degraded"):
        for element in strings(outputs.get(name, b"")):
            element.decode()
    for name in ("passages", "sources"):
        for element in strings(outputs.get(name, b"")):
            if element:
                json.loads(element.decode(), parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def leak_of(failure: Failure) -> str:
    """What an error tells that it should not; empty where it does not."""
    found = LEAKS.search(failure.message)
    return found.group() if found else ""
