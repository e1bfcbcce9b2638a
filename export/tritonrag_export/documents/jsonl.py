"""JSON Lines: a passage a line, for those who have cut their documents already. BEIR's corpus.jsonl is read as it is.

    {"id": "42", "text": "...", "title": "...", "uri": "...", "tenant": "...", "metadata": {...}, "start": 0, "end": 3}

`id` (or `_id`) and `text` are required; where the text is blank the title stands for it.
What is wrong ends the reading: a line that is left out would be missed by nobody.
"""

import codecs
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.errors import ContentError, FieldError
from tritonrag_export.documents.finding import display_name
from tritonrag_export.documents.json_object import parse_object
from tritonrag_export.documents.metadata import check_metadata, check_string, check_tenant, shown
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_export.documents.side_car import side_cars

JSONL_SUFFIX: Final = ".jsonl"
DEFAULT_MAX_LINE_BYTES: Final = 1 << 20

_KEYS: Final = ("id", "_id", "text", "title", "uri", "tenant", "metadata", "start", "end")
_MOST_OFFSET: Final = 2**63 - 1


def read_jsonl(path: Path, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> Iterator[DocumentPassages]:
    """Read a file of passages line by line, each a document of its own; blank lines are passed over.

    Raises BadRequestError, which names file, line, key, value and the way out, for the first line that can't be taken as it is,
    and for a file that can't be read or has a side-car. Ids that come twice are not looked for.
    """
    name = display_name(path)
    _refuse_side_car(path, name)
    for number, line in _lines(path, name, max_line_bytes):
        try:
            unit = _unit(parse_object(line))
        except FieldError as error:
            raise BadRequestError(f"{name} line {number}: {error}; correct the line or leave it out") from error
        yield unit


def _refuse_side_car(path: Path, name: str) -> None:
    """It may hold a tenant, so it can't be passed over; and the lines can tell theirs."""
    try:
        found = side_cars(path)
    except ContentError as error:
        raise BadRequestError(f"{name} {error}") from error
    if found:
        raise BadRequestError(
            f"{name} has a side-car, {display_name(found[0])}, but JSONL takes none; put tenant and metadata into its lines"
        )


def _lines(path: Path, name: str, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for ever
            raise BadRequestError(f"{name} is not a regular file; write its lines to one")
        with path.open("rb") as file:
            for number in count(1):
                line = file.readline(max_line_bytes + 1)
                if not line:
                    return
                if len(line) > max_line_bytes:
                    raise BadRequestError(
                        f"{name} line {number}: over the limit of {max_line_bytes} bytes; cut its text into passages"
                    )
                line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if line.strip():
                    yield number, line
    except OSError as error:
        raise BadRequestError(f"{name} can't be read: {error.strerror}; check the file and its permissions") from error


def _unit(fields: dict[str, Any]) -> DocumentPassages:
    unknown = next((key for key in fields if key not in _KEYS), None)
    if unknown is not None:
        raise FieldError(
            f"{shown(unknown)} is an unknown key, with {shown(fields[unknown])}, expected one of {' '.join(_KEYS)} "
            "(metadata takes any other)"
        )
    identity, text = _id(fields), _text(fields)
    start, end = _span(fields, len(text))
    passage = Passage(
        text=text,
        title=check_string(fields.get("title", ""), place="title"),
        uri=_not_empty(fields.get("uri", identity), "uri"),
        start=start,
        end=end,
        metadata=check_metadata(fields.get("metadata", {})),
    )
    tenant = check_tenant(fields["tenant"]) if "tenant" in fields else None
    return DocumentPassages(id=identity, tenant=tenant, passages=(passage,))


def _id(fields: dict[str, Any]) -> str:
    keys = [key for key in ("id", "_id") if key in fields]
    if not keys:
        raise FieldError("id is missing, expected a string or a whole number")
    if len(keys) > 1:
        raise FieldError(f"id is {shown(fields['id'])} and _id is {shown(fields['_id'])}, expected one of the two")
    value = fields[keys[0]]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise FieldError(f"{keys[0]} is {shown(value)}, expected a string or a whole number")
    return _not_empty(value, keys[0])


def _text(fields: dict[str, Any]) -> str:
    if "text" not in fields:
        raise FieldError("text is missing, expected a string")
    text = check_string(fields["text"], place="text")
    if text.strip():
        return text
    # BEIR's corpora hold documents that are a title alone: then that is what can be found and quoted.
    title = fields.get("title")
    if isinstance(title, str) and title.strip():
        return check_string(title, place="title")
    raise FieldError(f"text is {shown(text)} and there is no title, expected one that is not blank")


def _not_empty(value: object, place: str) -> str:
    text = check_string(value, place=place)
    if not text:
        raise FieldError(f'{place} is "", expected a string that is not empty')
    return text


def _span(fields: dict[str, Any], length: int) -> tuple[int, int]:
    """Where the passage stands in the text of its document; without one the passage is the document."""
    given = [key for key in ("start", "end") if key in fields]
    if not given:
        return 0, length
    if len(given) == 1:
        raise FieldError(f"{given[0]} is {shown(fields[given[0]])}, expected start and end both or none")
    start, end = fields["start"], fields["end"]
    for key, value, least in (("start", start, 0), ("end", end, start)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST_OFFSET:
            raise FieldError(f"{key} is {shown(value)}, expected a whole number from {least} to {_MOST_OFFSET}")
    return start, end
