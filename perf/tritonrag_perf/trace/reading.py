"""Reads a trace of requests to a RAG service as RAGPulse publishes it (arXiv 2511.12979; github.com/flashserve/RAGPulse).

    0_trace.jsonl       a request a line: arrival in seconds, lengths in tokens, and the ids of what its prompt was made of
    1_sys_prompt.jsonl  the token length of each of these ids, file by kind; of the system prompt, of the history and of what a
    2_passages.jsonl    web search found the ids stand for pieces of at most 512 tokens
    3_history.jsonl
    4_user_input.jsonl
    5_web_search.jsonl

Files 1, 3 and 5 may be missing: then `lengths` estimates what they would say. No text is in any of them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from tritonrag_client.errors import BadRequestError, NotFoundError
from tritonrag_perf.trace.lengths import Lengths, Loose, parts_of
from tritonrag_perf.trace.requests import Kind, Trace, TracedRequest

TRACE_FILE: Final = "0_trace.jsonl"
LENGTH_FILES: Final[dict[Kind, str]] = {
    "system": "1_sys_prompt.jsonl",
    "passage": "2_passages.jsonl",
    "history": "3_history.jsonl",
    "question": "4_user_input.jsonl",
    "web": "5_web_search.jsonl",
}
_NEEDED: Final[frozenset[Kind]] = frozenset({"passage", "question"})

_Id = Annotated[int, Field(ge=0)]
_Tokens = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Ids(_Strict):
    sys_prompt: tuple[_Id, ...] = Field(strict=False)
    passages_ids: tuple[_Id, ...] = Field(strict=False)
    history: tuple[_Id, ...] = Field(strict=False)
    web_search: tuple[_Id, ...] = Field(strict=False)
    user_input: tuple[_Id] = Field(strict=False)


class _Line(_Strict):
    timestamp: Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
    input_length: _Tokens
    output_length: Annotated[int, Field(ge=0)]
    hash_ids: _Ids
    session_id: Annotated[str, Field(min_length=1)]


class _Length(_Strict):
    # The id's name differs from file to file.
    id: _Id = Field(
        validation_alias=AliasChoices("sys_prompt_id", "passage_id", "history_id", "user_input_id", "web_search_id")
    )
    token_length: _Tokens


_Model = TypeVar("_Model", bound=_Strict)


def read_trace(folder: Path) -> Trace:
    """The requests in the order of their arrival.

    Raises NotFoundError where a file that is needed is missing, BadRequestError that names file, line and value where one is
    not as it should be.
    """
    path = folder / TRACE_FILE
    lines = [(f"{path}, line {number}", _parsed(_Line, path, number, line)) for number, line in _lines(path)]
    if not lines:
        raise BadRequestError(f"{path} holds no request; give a folder with a trace")
    lengths = Lengths(
        given={kind: _lengths(folder / name, kind) for kind, name in LENGTH_FILES.items()},
        requests=[_loose(line) for _, line in lines],
    )
    requests = [_request(place, line, lengths) for place, line in lines]
    return Trace(requests=tuple(sorted(requests, key=lambda r: r.arrival_s)), estimated=lengths.estimated)


def _loose(line: _Line) -> Loose:
    ids = line.hash_ids
    by_kind: dict[Kind, tuple[int, ...]] = {
        "system": ids.sys_prompt,
        "passage": ids.passages_ids,
        "history": ids.history,
        "web": ids.web_search,
        "question": ids.user_input,
    }
    return Loose(ids=by_kind, prompt_tokens=line.input_length)


def _request(place: str, line: _Line, lengths: Lengths) -> TracedRequest:
    return TracedRequest(
        arrival_s=float(line.timestamp),
        session=line.session_id,
        answer_tokens=line.output_length,
        parts=parts_of(_loose(line), lengths, place=place),
    )


def _lengths(path: Path, kind: Kind) -> dict[int, int] | None:
    """Token lengths by id; None for a file that may be missing and is."""
    if kind not in _NEEDED and not path.is_file():
        return None
    found: dict[int, int] = {}
    for number, line in _lines(path):
        length = _parsed(_Length, path, number, line)
        if found.setdefault(length.id, length.token_length) != length.token_length:
            raise BadRequestError(f"{path}, line {number} gives id {length.id} a second length; leave one of them")
    return found


def _parsed(model: type[_Model], path: Path, number: int, line: str) -> _Model:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        raise BadRequestError(
            f"{path}, line {number}: {where} is wrong: {first['msg']}; the format is RAGPulse's"
        ) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} is not there; give the folder of a trace in RAGPulse's format") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"{path} can't be read: {error}") from error
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
