"""Promises of the filter language: understood wholly or refused; never half."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonrag_backends.index.filters import (
    MOST_CONDITIONS,
    And,
    Equals,
    Exists,
    In,
    Not,
    Or,
    Range,
    fields_of,
    parse_filter,
    require_declared,
)
from tritonrag_client.errors import BadRequestError

FILTERS = Equals | In | Range | Exists | And | Or | Not


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("{}", None),
        (" { } ", None),
        ('{"lang": "en"}', Equals(field="lang", value="en")),
        ('{"n": 1, "ok": true}', And(filters=(Equals(field="n", value=1), Equals(field="ok", value=True)))),
        ('{"lang": {"in": ["en", 2]}}', In(field="lang", values=("en", 2))),
        ('{"year": {"lt": 2.5, "gte": 1}}', Range(field="year", bounds=(("gte", 1), ("lt", 2.5)))),
        ('{"year": {"exists": false}}', Exists(field="year", present=False)),
        ('{"not": {"a": 1}}', Not(filter=Equals(field="a", value=1))),
        ('{"or": [{"a": 1}, {"b": 2}]}', Or(filters=(Equals(field="a", value=1), Equals(field="b", value=2)))),
        ('{"and": [{"a": 1}]}', And(filters=(Equals(field="a", value=1),))),
        (
            '{"a": {"in": [1], "gt": 0}}',
            And(filters=(In(field="a", values=(1,)), Range(field="a", bounds=(("gt", 0),)))),
        ),
    ],
)
def test_a_filter_means_what_it_says(text: str, parsed: object) -> None:
    assert parse_filter(text) == parsed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "character 0"),
        ("{", "character 1"),
        ('{"a": 1,}', "character"),
        ("[]", "expected an object"),
        ("null", "filter is null"),
        ('"x"', "expected an object"),
        ("0", "expected an object"),
        ('{"a": null}', 'filter."a" is null'),
        ('{"a": [1]}', "expected a string"),
        ('{"a": {}}', "expected a value or an object with one of"),
        ('{"a": {"like": "x"}}', 'no operator "like"'),
        ('{"a": {"in": []}}', "list of 1 to"),
        ('{"a": {"in": "x"}}', "list of 1 to"),
        ('{"a": {"in": [[]]}}', r"in\[0\]"),
        ('{"a": {"exists": 1}}', "true or false"),
        ('{"a": {"gt": true}}', "a number or a string"),
        ('{"a": {"gt": 1, "lt": "z"}}', "all numbers or all strings"),
        ('{"and": []}', "at least one filter"),
        ('{"or": {"a": 1}}', "list of at least one"),
        ('{"not": []}', "expected an object"),
        ('{"not": {}}', "with a condition in it"),
        ('{"": 1}', "empty field name"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "finite number"),
        ('{"a": 9223372036854775808}', "64 bits"),
        ('{"a": ' + "1" * 5000 + "}", "too many digits"),
        ('{"a": "\\ud800"}', "expected a string"),
        ('{"a": 1, "a": 2}', '"a" twice'),
        ('{"not": ' * 17 + '{"a": 1}' + "}" * 17, "nested more than 16"),
        ("[" * 30_000, "nested more than 16"),
        ('{"a": "' + "x" * 70_000 + '"}', "over 65536 bytes"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        parse_filter(text)


def test_too_many_conditions_are_refused() -> None:
    conditions = [{"a": i} for i in range(MOST_CONDITIONS + 1)]
    assert parse_filter(json.dumps({"or": conditions[1:]})) is not None
    with pytest.raises(BadRequestError, match=f"holds {MOST_CONDITIONS + 1} conditions"):
        parse_filter(json.dumps({"or": conditions}))


def test_an_undeclared_field_is_refused_wherever_it_stands() -> None:
    parsed = parse_filter(
        '{"or": [{"lang": "en"}, {"not": {"and": [{"year": {"gt": 1}}, {"secret": {"exists": false}}]}}]}'
    )
    assert parsed is not None
    assert list(fields_of(parsed)) == ["lang", "year", "secret"]
    require_declared(parsed, frozenset({"lang", "year", "secret"}))
    with pytest.raises(BadRequestError, match=r'no field "secret" .*; it has \[.lang., .year.\]'):
        require_declared(parsed, frozenset({"lang", "year"}))
    with pytest.raises(BadRequestError, match='values of "year" that can\'t be filtered by'):
        require_declared(parsed, frozenset({"lang", "year", "secret"}), frozenset({"year"}))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.sampled_from(["and", "or", "not", "in", "gt", "gte", "lt", "lte", "exists", "a", "b", ""]) | st.text(
    max_size=3
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=20
)


@given(st.text() | anything.map(json.dumps))
@settings(max_examples=400, deadline=None)
def test_any_text_gives_a_filter_or_a_bad_request(text: str) -> None:
    try:
        parsed = parse_filter(text)
    except BadRequestError as error:
        error.message.encode()
    else:
        assert parsed is None or isinstance(parsed, FILTERS)


values = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).filter(
    lambda name: name not in ("and", "or", "not")
)
numbers = st.integers(-9, 9) | st.floats(-9, 9)
conditions = st.one_of(
    st.tuples(names, values),
    st.tuples(names, st.lists(values, min_size=1, max_size=4).map(lambda items: {"in": items})),
    st.tuples(names, st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), numbers, min_size=1)),
    st.tuples(names, st.booleans().map(lambda present: {"exists": present})),
).map(lambda pair: dict([pair]))
valid: st.SearchStrategy[dict[str, Any]] = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.builds(lambda items: {"and": items}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda items: {"or": items}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda item: {"not": item}, inner),
    ),
    max_leaves=8,
)


def names_in(value: dict[str, Any]) -> list[str]:
    ((key, inner),) = value.items()
    if key in ("and", "or"):
        return [name for item in inner for name in names_in(item)]
    return names_in(inner) if key == "not" else [key]


@given(valid)
@settings(max_examples=300, deadline=None)
def test_every_field_of_a_valid_filter_survives_parsing(value: dict[str, Any]) -> None:
    try:
        parsed = parse_filter(json.dumps(value))
    except BadRequestError as error:
        assert "nested more than" in error.message  # noqa: PT017 - the one refusal that a valid shape can meet
        return
    assert parsed is not None
    assert list(fields_of(parsed)) == names_in(value)
