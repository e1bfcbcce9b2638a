"""JSON as people and programs write it, read strictly: what could be understood in two ways is refused."""

import json
from typing import Any, Final

from tritonrag_export.documents.errors import FieldError
from tritonrag_export.documents.metadata import shown

_CONTEXT: Final = 20  # characters shown of what is not JSON


def parse_object(data: bytes) -> dict[str, Any]:
    """Read one object from UTF-8. Raises FieldError, also where an object holds a key twice.

    NaN and Infinity, which Python's reader takes, come through: whoever checks the values can name their key.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_refuse_twice)
    except UnicodeDecodeError as error:
        raise FieldError(f"byte {error.start + 1} is 0x{data[error.start]:02x}, expected UTF-8") from error
    except json.JSONDecodeError as error:
        found = error.doc[error.pos : error.pos + _CONTEXT]
        raise FieldError(
            f"not JSON: {error.msg} at character {error.pos + 1}, {f'where {shown(found)} stands' if found else 'its end'}"
        ) from error
    except RecursionError as error:
        raise FieldError("nested too deeply, expected a flatter object") from error
    except ValueError as error:  # Python refuses to read integers of thousands of digits
        raise FieldError("a number has thousands of digits, expected one of 64 bits, or a string") from error
    if not isinstance(value, dict):
        raise FieldError(f"it is {shown(value)}, expected an object")
    return value


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise FieldError(f"the key {shown(key)} stands twice in one object, with {shown(value)} the second time")
        found[key] = value
    return found
