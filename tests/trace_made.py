"""Traces made for tests, in RAGPulse's format."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NO_HISTORY = 900
LENGTH_FILES = {
    "1_sys_prompt.jsonl": "sys_prompt_id",
    "2_passages.jsonl": "passage_id",
    "3_history.jsonl": "history_id",
    "4_user_input.jsonl": "user_input_id",
    "5_web_search.jsonl": "web_search_id",
}
IDS = dict(zip(LENGTH_FILES, ("sys_prompt", "passages_ids", "history", "user_input", "web_search"), strict=True))


def line(at: int, question: int, passages: Iterable[int] = (), **other: Any) -> dict[str, Any]:
    """A request whose lengths `write_trace` fills in: system prompt of a fixed piece and one with the time."""
    ids = {
        "sys_prompt": [700, 10_000 + at],
        "passages_ids": list(passages),
        "history": [NO_HISTORY],
        "web_search": [],
        "user_input": [question],
    }
    return {
        "timestamp": str(at),
        "input_length": 0,
        "output_length": 20,
        "hash_ids": {**ids, **other},
        "session_id": f"s{at}",
    }


def length_of(kind: str, id_: int) -> int:
    """Lengths that differ."""
    if kind == "sys_prompt":
        return 512 if id_ == 700 else 40
    return {"user_input": 1 + id_ % 9, "passages_ids": 50 + id_ % 60, "history": 11, "web_search": 100}[kind]


def tokens_of(request: Mapping[str, Any], rest: int = 8) -> int:
    """What a prompt of these parts has, the chat template's tokens included."""
    return rest + sum(length_of(kind, id_) for kind, ids in request["hash_ids"].items() for id_ in ids)


def write_trace(folder: Path, requests: Iterable[dict[str, Any]], *, only_needed: bool = False) -> Path:
    """Write the trace with lengths for all its ids; `only_needed`: as it is where the files of some kinds are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    filled = [{**request, "input_length": request["input_length"] or tokens_of(request)} for request in requests]
    write_lines(folder / "0_trace.jsonl", filled)
    for name, id_name in LENGTH_FILES.items():
        if only_needed and name not in {"2_passages.jsonl", "4_user_input.jsonl"}:
            continue
        kind = IDS[name]
        ids = sorted({id_ for request in filled for id_ in request["hash_ids"][kind]})
        write_lines(folder / name, [{id_name: id_, "token_length": length_of(kind, id_)} for id_ in ids])
    return folder


def write_lines(path: Path, values: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values) + "\n")
