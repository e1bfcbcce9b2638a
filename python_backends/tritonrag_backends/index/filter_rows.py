"""Filters at work: which rows of a segment pass one, from the postings; and whether a passage does, from its own metadata.

The second is written from the definition of the language alone (`filters.py`) and checks what the first let through.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.fields import field_key, field_span, key_after, type_span
from tritonrag_backends.index.filters import And, Equals, Exists, Filter, In, Not, Or, Range, RangeOperator, Scalar
from tritonrag_backends.index.postings import Postings

Mask = npt.NDArray[np.bool_]

_COMPARE: Final[dict[RangeOperator, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def rows_matching(filter: Filter, fields: Postings, rows: int) -> Mask:  # noqa: A002 - the term
    """Which rows of a segment pass the filter, BOOL [rows]. Takes as long as what matches, and a byte a row and condition."""
    passing = np.zeros(rows, np.bool_)
    _let_pass(filter, fields, passing)
    return passing


def _let_pass(filter: Filter, fields: Postings, passing: Mask) -> None:  # noqa: A002 - the term
    """Mark the rows that pass, beside those that are marked."""
    match filter:
        case Equals():
            _mark_value(filter.field, filter.value, fields, passing)
        case In():
            for value in filter.values:
                _mark_value(filter.field, value, fields, passing)
        case Range():
            passing[fields.rows_between(fields.span(*_bounds(filter)))] = True
        case Or():
            for inner in filter.filters:
                _let_pass(inner, fields, passing)
        case _:
            passing |= _whole(filter, fields, len(passing))


def _whole(filter: And | Not | Exists, fields: Postings, rows: int) -> Mask:  # noqa: A002 - the term
    """The rows that pass a filter which takes all rows into account, those that bear nothing among them."""
    match filter:
        case And():
            passing = np.ones(rows, np.bool_)
            for inner in filter.filters:
                passing &= rows_matching(inner, fields, rows)
            return passing
        case Not():
            return ~rows_matching(filter.filter, fields, rows)
        case Exists():
            passing = np.full(rows, not filter.present, np.bool_)
            passing[fields.rows_between(fields.span(*field_span(filter.field)))] = filter.present
            return passing


def _mark_value(field: str, value: Scalar, fields: Postings, passing: Mask) -> None:
    position = fields.find(field_key(field, value))
    if position is not None:
        passing[fields.rows_of(position)] = True


def _bounds(filter: Range) -> tuple[bytes, bytes]:  # noqa: A002 - the term
    """From which key, up to before which. One value has one key, so that what lies between fulfils all bounds by itself."""
    low, high = type_span(filter.field, filter.bounds[0][1])
    for name, bound in filter.bounds:
        key = field_key(filter.field, bound)
        match name:
            case "gte":
                low = max(low, key)
            case "gt":
                low = max(low, key_after(key))
            case "lt":
                high = min(high, key)
            case "lte":
                high = min(high, key_after(key))
    return low, high


def matches(filter: Filter, metadata: Mapping[str, object]) -> bool:  # noqa: A002 - the term
    """Whether a passage with this metadata passes the filter."""
    match filter:
        case And():
            return all(matches(inner, metadata) for inner in filter.filters)
        case Or():
            return any(matches(inner, metadata) for inner in filter.filters)
        case Not():
            return not matches(filter.filter, metadata)
        case _:
            return _holds(filter, _values(metadata, filter.field))


def _holds(condition: Equals | In | Range | Exists, values: list[Scalar]) -> bool:
    match condition:
        case Exists():
            return bool(values) is condition.present
        case Equals():
            return any(_same(value, condition.value) for value in values)
        case In():
            return any(_same(value, one) for value in values for one in condition.values)
        case Range():
            return any(_within(value, condition) for value in values)


def _values(metadata: Mapping[str, object], field: str) -> list[Scalar]:
    value = metadata.get(field)
    elements = value if isinstance(value, list | tuple) else [value]
    return [element for element in elements if isinstance(element, Scalar)]


def _same(value: Scalar, other: Scalar) -> bool:
    return _type(value) == _type(other) and value == other


def _within(value: Scalar, filter: Range) -> bool:  # noqa: A002 - the term
    """Whether one value fulfils every bound. Numbers compare with numbers and strings with strings; Python does so exactly."""
    return all(_type(value) == _type(bound) and _COMPARE[name](value, bound) for name, bound in filter.bounds)


def _type(value: Scalar) -> str:
    """JSON's type: true is no number, and 1 and 1.0 are of one type."""
    return "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
