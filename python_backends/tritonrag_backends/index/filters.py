"""The filter language: JSON in a request's `filter` tensor to frozen values.

    {}                                             no filter
    {"lang": "en"}                                 lang equals "en"; several keys in one object must all hold
    {"lang": {"in": ["en", "de"]}}                 is one of
    {"year": {"gte": 2020, "lt": 2026}}            range: gt, gte, lt, lte; two strings compare by code point
    {"year": {"exists": true}}                     has (or, with false, lacks) the field
    {"and": [F, ...]}  {"or": [F, ...]}  {"not": F}

A value is a string, a finite number, true or false. Fields are declared by an index; `and`, `or` and `not` can't be field names.
Whatever is not understood is refused, never ignored: a filter that is dropped in silence would show what it should hide.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

from tritonrag_client.errors import BadRequestError

Scalar = str | int | float | bool
RangeOperator = Literal["gt", "gte", "lt", "lte"]

MOST_BYTES: Final = 65_536
MOST_DEPTH: Final = 16
MOST_CONDITIONS: Final = 256
MOST_VALUES: Final = 1_024
_RANGE: Final[tuple[RangeOperator, ...]] = ("gt", "gte", "lt", "lte")
_OPERATORS: Final = ("in", "exists", *_RANGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Equals:
    """The field's value is this one, of the same JSON type."""

    field: str
    value: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class In:
    """The field's value is one of these."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Each bound holds: (operator, number or string)."""

    field: str
    bounds: tuple[tuple[RangeOperator, int | float | str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exists:
    """The passage has the field, or lacks it."""

    field: str
    present: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class And:
    """All hold."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Or:
    """At least one holds."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Not:
    """It does not hold."""

    filter: "Filter"


Filter = Equals | In | Range | Exists | And | Or | Not


def parse_filter(text: str) -> Filter | None:
    """Read a filter; None for `{}`, which filters nothing. Raises BadRequestError that names the place and the way out."""
    if len(text) > MOST_BYTES or len(text.encode(errors="replace")) > MOST_BYTES:
        raise BadRequestError(f"filter is over {MOST_BYTES} bytes long; send a shorter one")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice)
    except json.JSONDecodeError as error:
        raise BadRequestError(
            f"filter is not JSON: {error.msg} at character {error.pos}; send an object such as " + '{"field": "value"}'
        ) from error
    except RecursionError as error:
        raise BadRequestError(f"filter is nested more than {MOST_DEPTH} deep; send a flatter one") from error
    except ValueError as error:  # Python refuses to read integers of thousands of digits
        raise BadRequestError("filter holds a number with too many digits; send one that fits 64 bits") from error
    if value == {} and isinstance(value, dict):
        return None
    parsed = _parse(value, "filter", 1)
    conditions = sum(1 for _ in fields_of(parsed))
    if conditions > MOST_CONDITIONS:
        raise BadRequestError(f"filter holds {conditions} conditions; send at most {MOST_CONDITIONS}")
    return parsed


def fields_of(parsed: Filter) -> Iterator[str]:
    """The field of each condition, in order, repeated where a field is."""
    if isinstance(parsed, And | Or):
        for inner in parsed.filters:
            yield from fields_of(inner)
    elif isinstance(parsed, Not):
        yield from fields_of(parsed.filter)
    else:
        yield parsed.field


def require_declared(parsed: Filter, declared: frozenset[str], unfilterable: frozenset[str] = frozenset()) -> None:
    """Raise BadRequestError where the filter names a field that the index can't honour."""
    for field in fields_of(parsed):
        if field in unfilterable:
            raise BadRequestError(
                f"filter: passages of this index hold values of {_short(field)} that can't be filtered by (objects or very long "
                "strings); filter by another field, or build the index with the fields that are meant (--field)"
            )
        if field not in declared:
            known = f"it has {sorted(declared)}" if declared else "it has none, so nothing can be filtered"
            raise BadRequestError(f"filter: this index has no field {_short(field)} to filter by; {known}")


def _parse(value: object, place: str, depth: int) -> Filter:
    if depth > MOST_DEPTH:
        raise BadRequestError(f"filter is nested more than {MOST_DEPTH} deep; send a flatter one")
    if not isinstance(value, dict):
        _fail(place, value, "an object")
    if not value:
        _fail(place, value, "an object with a condition in it")
    parts = tuple(_entry(key, inner, place, depth) for key, inner in value.items())
    return parts[0] if len(parts) == 1 else And(filters=parts)


def _entry(key: str, value: object, place: str, depth: int) -> Filter:
    inside = f"{place}.{_short(key)}"
    if key == "not":
        return Not(filter=_parse(value, inside, depth + 1))
    if key in ("and", "or"):
        if not isinstance(value, list) or not value:
            _fail(inside, value, "a list of at least one filter")
        filters = tuple(_parse(item, f"{inside}[{i}]", depth + 1) for i, item in enumerate(value))
        return And(filters=filters) if key == "and" else Or(filters=filters)
    if not key:
        raise BadRequestError(f'{place} holds the empty field name ""; name a field')
    if isinstance(value, dict):
        return _operators(key, value, inside)
    return Equals(field=key, value=_scalar(value, inside))


def _operators(field: str, operators: Mapping[str, Any], place: str) -> Filter:
    if not operators:
        _fail(place, operators, f"a value or an object with one of {list(_OPERATORS)}")
    for name in operators:
        if name not in _OPERATORS:
            raise BadRequestError(f"{place}: there is no operator {_short(name)}; use one of {list(_OPERATORS)}")
    parts: list[Filter] = []
    if "in" in operators:
        parts.append(In(field=field, values=_values(operators["in"], f"{place}.in")))
    if "exists" in operators:
        if not isinstance(operators["exists"], bool):
            _fail(f"{place}.exists", operators["exists"], "true or false")
        parts.append(Exists(field=field, present=operators["exists"]))
    bounds = tuple((name, _bound(operators[name], f"{place}.{name}")) for name in _RANGE if name in operators)
    if bounds:
        if len({isinstance(bound, str) for _, bound in bounds}) > 1:
            _fail(place, operators, "bounds that are all numbers or all strings")
        parts.append(Range(field=field, bounds=bounds))
    return parts[0] if len(parts) == 1 else And(filters=tuple(parts))


def _values(value: object, place: str) -> tuple[Scalar, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_VALUES:
        _fail(place, value, f"a list of 1 to {MOST_VALUES} values")
    return tuple(_scalar(item, f"{place}[{i}]") for i, item in enumerate(value))


def _bound(value: object, place: str) -> int | float | str:
    scalar = _scalar(value, place)
    if isinstance(scalar, bool):
        _fail(place, value, "a number or a string")
    return scalar


def _scalar(value: object, place: str) -> Scalar:
    """A string that UTF-8 can hold, a boolean, or a number: whole ones within 64 bits, others finite."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _fail(place, value, "a string, a finite number within 64 bits, true or false")


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequestError(f"filter holds {name}, which is no JSON number; send a finite one")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a later key replace an earlier one: half of a filter would be gone in silence."""
    keys = dict(pairs)
    if len(keys) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequestError(f'filter holds the key {_short(twice)} twice in one object; join the two with "and"')
    return keys


def _fail(place: str, value: object, expected: str) -> NoReturn:
    raise BadRequestError(f"{place} is {_short(value)}, expected {expected}")


def _short(value: object) -> str:
    # ASCII, because a lone surrogate that JSON can escape could not be sent back as UTF-8.
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - a line of a terminal
