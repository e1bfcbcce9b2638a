"""Promises of the keys of metadata: bytes order as values do, no two things share a key, and what can't be filtered by is told."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tritonrag_backends.index.fields import (
    ALL_DOCUMENTS,
    ALL_TENANTS,
    DocumentKey,
    decode_document_key,
    document_key,
    field_key,
    field_span,
    key_after,
    metadata_keys,
    tenant_key,
    type_span,
)
from tritonrag_client.errors import BadRequestError

NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-(2**63), 2**63 - 1]),
    st.builds(
        lambda base, step: base + step, st.sampled_from([0, 2**53, -(2**53), 2**62, -(2**62)]), st.integers(-3, 3)
    ),
    st.builds(lambda base, step: float(base + step), st.sampled_from([0, 2**53, -(2**53), 2**62]), st.integers(-3, 3)),
)
STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
FIELDS = st.text(st.sampled_from("ab\0\1\2é"), min_size=1, max_size=4)


@given(a=NUMBERS, b=NUMBERS)
@example(a=5, b=5.0)
@example(a=0.0, b=-0.0)
@example(a=2**53, b=2**53 + 1)
@example(a=float(2**53), b=2**53 + 1)
@example(a=2**63 - 1, b=2.0**63)
@example(a=5e-324, b=0)
def test_keys_of_numbers_order_as_the_numbers_do(a: float, b: float) -> None:
    assert (field_key("f", a) < field_key("f", b)) == (a < b)
    assert (field_key("f", a) == field_key("f", b)) == (a == b)


@given(a=STRINGS, b=STRINGS)
def test_keys_of_strings_order_by_code_point(a: str, b: str) -> None:
    assert (field_key("f", a) < field_key("f", b)) == (a < b)


@given(value=st.one_of(NUMBERS, STRINGS), other=st.one_of(NUMBERS, STRINGS))
def test_nothing_lies_between_a_key_and_the_one_after(value: Any, other: Any) -> None:
    key, found = field_key("f", value), field_key("f", other)
    assert (found < key_after(key)) == (found <= key)


def test_values_of_different_types_have_different_keys() -> None:
    values = [True, False, 1, 0, "1", "0", "true", "", "\1", "\0"]
    assert len({field_key("f", value) for value in values}) == len(values)


@given(field=FIELDS, other=FIELDS, value=st.one_of(NUMBERS, STRINGS, st.booleans()))
def test_a_field_s_span_holds_its_keys_and_no_other_field_s(field: str, other: str, value: Any) -> None:
    low, high = field_span(field)
    key = field_key(other, value)
    assert (low <= key < high) == (field == other)
    for like in (1, 1.5, "x"):
        low, high = type_span(field, like)
        same = not isinstance(value, bool) and isinstance(value, str) == isinstance(like, str)
        assert (low <= key < high) == (field == other and same)
    for low, high in (ALL_DOCUMENTS, ALL_TENANTS):
        assert not low <= key < high


@given(document=NAMES, tenant=st.none() | NAMES)
def test_a_document_s_key_says_which_it_is(document: str, tenant: str | None) -> None:
    key = document_key(document, tenant)
    assert decode_document_key(key) == DocumentKey(document=document, tenant=tenant)
    assert ALL_DOCUMENTS[0] <= key < ALL_DOCUMENTS[1]
    assert not ALL_TENANTS[0] <= key < ALL_TENANTS[1]


@given(tenants=st.sets(NAMES))
def test_tenants_have_keys_of_their_own(tenants: set[str]) -> None:
    keys = {tenant_key(tenant) for tenant in tenants}
    assert len(keys) == len(tenants)
    assert all(ALL_TENANTS[0] <= key < ALL_TENANTS[1] for key in keys)


def test_ids_without_a_tenant_are_not_those_of_the_tenant_without_a_name() -> None:
    assert len({document_key("d", None), document_key("d", ""), document_key("", "d"), document_key("", None)}) == 4


@pytest.mark.parametrize(
    "make", [lambda: document_key("a\0", None), lambda: document_key("a", "t\0"), lambda: tenant_key("\0")]
)
def test_ids_with_nul_are_refused(make: Any) -> None:
    with pytest.raises(BadRequestError, match="NUL"):
        make()


def test_scalars_and_lists_of_scalars_can_be_filtered_by() -> None:
    keys, fields, unfilterable = metadata_keys(
        {"a": "x", "b": [1, 2.5, True], "c": None, "d": [], "e": [None, 3]}, None
    )
    assert keys == {
        field_key("a", "x"), field_key("b", 1), field_key("b", 2.5), field_key("b", True), field_key("e", 3),
    }  # fmt: skip
    assert fields == {"a", "b", "e"}
    assert unfilterable == set()


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"x": 1},
        [{}],
        [1, [2]],
        "x" * 1_025,
        "é" * 513,
        2**63,
        -(2**63) - 1,
        math.nan,
        math.inf,
        [1, math.nan],
        [None, {}],
    ],
)
def test_other_values_make_a_field_unfilterable_or_are_refused_where_it_is_declared(value: Any) -> None:
    assert metadata_keys({"odd": value, "n": 1}, None) == ({field_key("n", 1)}, {"n"}, {"odd"})
    assert metadata_keys({"odd": value, "n": 1}, frozenset({"n"})) == ({field_key("n", 1)}, {"n"}, set())
    with pytest.raises(BadRequestError, match=r"'odd' holds .*declare") as raised:
        metadata_keys({"odd": value, "n": 1}, frozenset({"odd"}))
    assert len(raised.value.message) < 400


def test_the_longest_string_and_the_widest_integers_can_be_filtered_by() -> None:
    for value in ("x" * 1_024, 2**63 - 1, -(2**63)):
        assert metadata_keys({"f": value}, frozenset({"f"})) == ({field_key("f", value)}, {"f"}, set())


@pytest.mark.parametrize("name", ["", "and", "or", "not"])
def test_names_that_no_filter_can_say_are_told_as_unfilterable(name: str) -> None:
    assert metadata_keys({name: 1}, None) == (set(), set(), {name})


def test_only_declared_fields_are_looked_at() -> None:
    assert metadata_keys({"a": 1, "b": 2}, frozenset({"b", "c"})) == ({field_key("b", 2)}, {"b"}, set())


def test_keys_come_in_the_order_of_a_list_of_values_that_python_sorts() -> None:
    values = sorted(
        [-(2**63), -1e300, -1.5, -1, -0.5, 0, 5e-324, 0.5, 1, 2**53, 2**53 + 1, float(2**53 + 2), 2**63 - 1, 1e300]
    )
    assert all(field_key("f", a) < field_key("f", b) for a, b in pairwise(values))
