"""What may describe a document: metadata, tenant and names are checked here, whatever they were read from."""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from tritonrag_export.documents.errors import FieldError

# Metadata is stored and sent with every passage of its document.
MOST_METADATA_BYTES: Final = 65_536
MOST_DEPTH: Final = 16

_LEAST_INTEGER: Final = -(2**63)
_MOST_INTEGER: Final = 2**63 - 1
_SHOWN_CHARACTERS: Final = 60


def check_metadata(value: object, *, place: str = "metadata") -> dict[str, Any]:
    """The metadata, once it is sure that it can be written as JSON, sent, and read back as it was.

    Strings without NUL and lone surrogates, finite numbers, whole ones within 64 bits, true, false, null, lists, and objects
    whose keys are not empty; nested at most 16 deep, at most 64 KiB as JSON. The key `tenant` is refused: in metadata it
    would look like a wall and be none. `place` stands before the keys in messages, "" for none. Raises FieldError.
    """
    if not isinstance(value, dict):
        raise FieldError(f"{place or 'the metadata'} is {shown(value)}, expected an object")
    if "tenant" in value:
        raise FieldError(
            f"{at(place, 'tenant')} is {shown(value['tenant'])}, but metadata sets no tenant: a side-car (FILE.meta.json), "
            "the key tenant of a line of JSONL or --tenant does"
        )
    _check_value(value, place, 1)
    check_metadata_size(value, place=place)
    return value


def check_metadata_size(metadata: Mapping[str, Any], *, place: str = "metadata") -> None:
    """Raises FieldError, which names the largest key, for checked metadata over 64 KiB as JSON."""
    size = _json_bytes(metadata)
    if size > MOST_METADATA_BYTES:
        key = max(metadata, key=lambda key: _json_bytes(metadata[key]))
        raise FieldError(
            f"{place or 'the metadata'} is {size} bytes of JSON, over the limit of {MOST_METADATA_BYTES}; the most of it is "
            f"{at(place, key)}, {shown(metadata[key])}"
        )


def check_tenant(value: object, *, place: str = "tenant") -> str:
    """A tenant: a string that is not empty. Raises FieldError."""
    tenant = check_string(value, place=place)
    if not tenant:
        raise FieldError(f'{place} is "", expected a string that is not empty')
    return tenant


def check_string(value: object, *, place: str) -> str:
    """A string that every part of the way can take: UTF-8 without NUL. Raises FieldError."""
    if not isinstance(value, str):
        raise FieldError(f"{place} is {shown(value)}, expected a string")
    if "\0" in value or not _is_utf8(value):
        raise FieldError(f"{place} is {shown(value)}, expected a string without NUL and lone surrogates")
    return value


def shown(value: object) -> str:
    """A value as it stands in a message: as JSON, shortened, on one line, fit for any terminal."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=repr).encode(errors="backslashreplace").decode()
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def at(place: str, key: str) -> str:
    """The place of a key inside the object at `place` ("" for the outermost)."""
    name = key if key.isidentifier() and len(key) <= _SHOWN_CHARACTERS else shown(key)[1:-1]
    return f"{place}.{name}" if place else name


def _check_value(value: object, place: str, depth: int) -> None:
    if isinstance(value, dict | list) and depth > MOST_DEPTH:
        raise FieldError(f"{place} is nested more than {MOST_DEPTH} deep, expected a flatter value")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_value(inner, at(place, _check_key(key, place)), depth + 1)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _check_value(inner, f"{place}[{i}]", depth + 1)
    elif isinstance(value, str):
        check_string(value, place=place)
    elif value is not None and not isinstance(value, bool):
        _check_number(value, place)


def _check_key(key: object, place: str) -> str:
    if not isinstance(key, str) or not key or "\0" in key or not _is_utf8(key):
        where = place or "the metadata"
        raise FieldError(
            f"{where} has the key {shown(key)}, expected a string that is not empty, without NUL and lone surrogates"
        )
    return key


def _check_number(value: object, place: str) -> None:
    if isinstance(value, int):
        if not _LEAST_INTEGER <= value <= _MOST_INTEGER:
            raise FieldError(f"{place} is {shown(value)}, expected a whole number of 64 bits, or a string")
    elif not isinstance(value, float):
        raise FieldError(f"{place} is {shown(value)}, a value that JSON has not")
    elif not math.isfinite(value):
        raise FieldError(f"{place} is {shown(value)}, expected a finite number")


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
