"""A tiny request for each stage, through Triton's own HTTP endpoint, and what its answer says of the stage."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from tritonrag_client.contract import (
    EMBEDDER,
    EMBEDDING,
    GENERATOR,
    INDEX_VERSION,
    MODE,
    RETRIEVE,
    RETRIEVER,
    STOP,
    TEXT_INPUT,
)
from tritonrag_client.errors import BadRequestError, NotFoundError, OverloadedError, parse_error

STAGES: Final = (EMBEDDER, RETRIEVER, RETRIEVE, GENERATOR)
_WORD: Final = "canary"
_REQUEST_ID: Final = "supervisor-canary"  # of no generation
_OK: Final = 200
_SERVER_ERROR: Final = 500
# Triton's own words (2.51.0) for a model without a living process, and for one that is not loaded.
_DEAD: Final = ("is not healthy", "has no available versions", "unknown model")
# For a full queue of its own.
_FULL: Final = "exceeds maximum queue size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What is asked of a stage: a POST of JSON to `path`."""

    stage: str
    path: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`alive`: the stage's code answered. `failing`: it answered that it can't. `dead`: it has no process, or is not loaded.

    `detail` tells what `reason` does in Triton's own words, which may hold paths and tracebacks.
    """

    kind: Literal["alive", "failing", "dead"]
    reason: str = ""
    detail: str = ""


def canary_of(stage: str) -> Canary:
    """The request for one of STAGES. What it asks costs next to nothing: the searchers know its answer after the first time."""
    if stage == GENERATOR:
        # Told to stop what does not run, its event loop answers NotFound: no language model works for it.
        return Canary(stage=stage, path=f"/v2/models/{stage}/generate", body={"id": _REQUEST_ID, STOP: True})
    inputs, output = {TEXT_INPUT: _WORD}, EMBEDDING if stage == EMBEDDER else INDEX_VERSION
    if stage == RETRIEVER:
        inputs[MODE] = "lexical"  # without a vector
    tensors = [{"name": name, "datatype": "BYTES", "shape": [1, 1], "data": [text]} for name, text in inputs.items()]
    return Canary(
        stage=stage,
        path=f"/v2/models/{stage}/infer",
        body={"id": _REQUEST_ID, "inputs": tensors, "outputs": [{"name": output}]},
    )


def canaries_of(models: Iterable[str]) -> dict[str, Canary]:
    """A canary for each of the models that is a stage."""
    loaded = set(models)
    return {stage: canary_of(stage) for stage in STAGES if stage in loaded}


def verdict_of(status: int, body: bytes) -> Verdict:
    """What an HTTP answer says. An error that only a running model can send shows that it runs."""
    if status == _OK:
        return Verdict(kind="alive")
    text = _error_of(body)
    if (ours := parse_error(text)) is not None:
        alive = isinstance(ours, NotFoundError | BadRequestError | OverloadedError)
        return Verdict(kind="alive") if alive else Verdict(kind="failing", reason=f"its canary fails: {ours}")
    lowered = text.lower()
    if any(words in lowered for words in _DEAD):
        return Verdict(
            kind="dead", reason="Triton says that it has no process, or is not loaded", detail=f"Triton says: {text}"
        )
    if _FULL in lowered or status < _SERVER_ERROR:  # such as a model of another repository, which takes other inputs
        return Verdict(kind="alive")
    fails = f"its canary fails with status {status}"
    return Verdict(kind="failing", reason=fails, detail=f"{fails}: {text}")


def _error_of(body: bytes) -> str:
    """Triton's errors are JSON objects with one key."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip() or "no reason given"
