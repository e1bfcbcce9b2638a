"""Metadata is what JSON can carry there and back, or a reason that names key and value."""

import json

import pytest
from documents_strategies import metadata
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_export.documents.errors import FieldError
from tritonrag_export.documents.metadata import check_metadata, check_tenant, shown

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


@given(metadata)
def test_what_json_can_carry_comes_through_as_it_is(metadata: dict[str, object]) -> None:
    assert check_metadata(metadata) is metadata


@given(anything)
def test_anything_else_is_a_reason_and_what_passes_survives_the_way_to_json_and_back(value: object) -> None:
    try:
        metadata = check_metadata(value)
    except FieldError as error:
        str(error).encode()
        assert "\n" not in str(error)  # noqa: PT017  # either way is right
    else:
        assert json.loads(json.dumps(metadata, ensure_ascii=False).encode()) == metadata


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ([], "metadata is a list, expected an object"),
        ({"": 1}, 'metadata has the key "", expected a string that is not empty'),
        ({1: 1}, "metadata has the key 1"),
        ({"a": {"\0": 1}}, r'metadata.a has the key "\u0000"'),
        ({"a": ["x", "\0"]}, r'metadata.a[1] is "\u0000", expected a string without NUL'),
        ({"a": "\ud800"}, r'metadata.a is "\ud800"'),
        ({"a": float("nan")}, "metadata.a is NaN, expected a finite number"),
        ({"a": 2**63}, "metadata.a is 9223372036854775808, expected a whole number of 64 bits, or a string"),
        ({"a": -(2**63) - 1}, "expected a whole number of 64 bits"),
        ({"a": b"x"}, "metadata.a is \"b'x'\", a value that JSON has not"),
        ({"a": (1,)}, "metadata.a is a list, a value that JSON has not"),
        ({"tenant": "acme"}, 'metadata.tenant is "acme", but metadata sets no tenant'),
    ],
)
def test_a_reason_names_key_and_value(metadata: object, told: str) -> None:
    with pytest.raises(FieldError) as caught:
        check_metadata(metadata)
    assert told in str(caught.value)


def test_sixteen_levels_are_enough() -> None:
    nested: dict[str, object] = {}
    for _ in range(15):
        nested = {"a": nested}
    assert check_metadata(nested) is nested
    with pytest.raises(FieldError, match=r"metadata(\.a){16} is nested more than 16 deep"):
        check_metadata({"a": nested})


def test_endless_metadata_is_refused_and_not_followed() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(FieldError, match="nested more than 16 deep"):
        check_metadata({"a": endless})


def test_too_much_is_refused_with_both_numbers_and_the_largest_key() -> None:
    with pytest.raises(
        FieldError, match=r'is 66026 bytes of JSON, over the limit of 65536; the most of it is big, "ééé'
    ):
        check_metadata({"small": 1, "big": "é" * 33_000, "n": 0}, place="")


@pytest.mark.parametrize("tenant", ["", None, 1, "a\0", "\ud800", ["a"]])
def test_a_tenant_is_a_string_that_is_not_empty(tenant: object) -> None:
    with pytest.raises(FieldError, match=r"^tenant is .*, expected a string"):
        check_tenant(tenant)


def test_a_value_is_shown_short_and_on_one_line() -> None:
    assert shown("a\nb" * 100) == '"' + r"a\nb" * 14 + "..."
