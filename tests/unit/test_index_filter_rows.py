"""Promises of filters at work: what the postings say is what each passage's own metadata says, for any filter and any metadata."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tritonrag_backends.index.fields import document_key, metadata_keys, tenant_key
from tritonrag_backends.index.filter_rows import matches, rows_matching
from tritonrag_backends.index.filters import And, Equals, Exists, Filter, In, Not, Or, Range, parse_filter
from tritonrag_backends.index.postings import Postings
from tritonrag_backends.index.postings_writer import PostingsWriter

# Few fields and values that are near each other, so that filters meet what is there.
FIELD_NAMES = st.sampled_from(["a", "b", "a\0", "é"])
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**53 - 1, 2**53, 2**53 + 1, float(2**53), float(2**53 + 2), -(2**63), 2**63 - 1, 2.0**63]),
    st.sampled_from([-0.0, 0.0, 0.5, 1.0, -1.5, 1e300, 5e-324]),
)
STRINGS = st.sampled_from(["", "a", "a\0", "ab", "é", "z", "\U0001f600", "\uffff", "1", "true"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=2
)
SCALARS = st.one_of(NUMBERS, STRINGS, st.booleans())
VALUES = st.one_of(SCALARS, st.none(), st.lists(SCALARS | st.none(), max_size=4))
METADATA = st.dictionaries(FIELD_NAMES, VALUES, max_size=3)
BOUNDS = st.one_of(
    *(
        st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), values, min_size=1).map(
            lambda of: tuple(of.items())
        )
        for values in (NUMBERS, STRINGS)
    )
)
CONDITIONS = st.one_of(
    st.builds(Equals, field=FIELD_NAMES, value=SCALARS),
    st.builds(In, field=FIELD_NAMES, values=st.lists(SCALARS, min_size=1, max_size=4).map(tuple)),
    st.builds(Range, field=FIELD_NAMES, bounds=BOUNDS),
    st.builds(Exists, field=FIELD_NAMES, present=st.booleans()),
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds(And, filters=st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, filters=st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Not, filter=inner),
    ),
    max_leaves=6,
)


def index(folder: Path, metadata: Sequence[Mapping[str, object]]) -> Postings:
    """Postings as a segment has them, keys of documents and tenants among them."""
    writer = PostingsWriter(folder, "fields", counts=False)
    for row, fields in enumerate(metadata):
        keys, _, unfilterable = metadata_keys(fields, None)
        assert not unfilterable
        writer.add(row, keys | {document_key(f"d{row % 3}", "a"), tenant_key("a")})
    writer.finish()
    return Postings.open(folder, "fields", rows=len(metadata), counts=False)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(metadata=st.lists(METADATA, min_size=1, max_size=12), filters=st.lists(FILTERS, min_size=10, max_size=20))
def test_rows_pass_exactly_when_their_metadata_does(
    tmp_path_factory: pytest.TempPathFactory, metadata: list[dict[str, Any]], filters: list[Filter]
) -> None:
    postings = index(tmp_path_factory.mktemp("filters"), metadata)
    for one in filters:
        assert rows_matching(one, postings, len(metadata)).tolist() == [matches(one, fields) for fields in metadata]


@pytest.mark.parametrize(
    ("metadata", "text", "passes"),
    [
        ({"a": 5}, '{"a": 5.0}', True),
        ({"a": 2**53 + 1}, '{"a": 9007199254740992.0}', False),
        ({"a": True}, '{"a": 1}', False),
        ({"a": 1}, '{"a": true}', False),
        ({"a": "1"}, '{"a": 1}', False),
        ({"a": ["x", "y"]}, '{"a": "y"}', True),
        ({"a": [1, 10]}, '{"a": {"gt": 2, "lt": 9}}', False),
        ({"a": [1, 5, 10]}, '{"a": {"gt": 2, "lt": 9}}', True),
        ({"a": [1, 10]}, '{"and": [{"a": {"gt": 2}}, {"a": {"lt": 9}}]}', True),
        ({"a": True}, '{"a": {"gte": 0}}', False),
        ({"a": "5"}, '{"a": {"gte": 0}}', False),
        ({"a": 5}, '{"a": {"gte": "0"}}', False),
        ({"a": "b"}, '{"a": {"gte": "a", "lt": "b"}}', False),
        ({"a": "a\0"}, '{"a": {"gt": "a", "lte": "b"}}', True),
        ({"a": "a\0"}, '{"a": {"lte": "a"}}', False),
        ({"a": "\uffff"}, '{"a": {"lt": "\U00010000"}}', True),
        ({"a": 1}, '{"a": {"gt": 2, "lt": 1}}', False),
        ({}, '{"not": {"a": 1}}', True),
        ({"a": None}, '{"a": {"exists": false}}', True),
        ({"a": []}, '{"a": {"exists": true}}', False),
        ({"a": False}, '{"a": {"exists": true}}', True),
        ({"a": 2}, '{"a": {"in": [1, 2]}}', True),
        ({"b": 2}, '{"a": {"in": [1, 2]}}', False),
        ({"a": 1, "b": 2}, '{"a": 1, "b": 3}', False),
        ({"a": 1, "b": 2}, '{"or": [{"a": 2}, {"b": 2}]}', True),
    ],
)
def test_a_filter_lets_pass_what_its_language_says(
    tmp_path: Path, metadata: dict[str, Any], text: str, passes: bool
) -> None:
    parsed = parse_filter(text)
    assert parsed is not None
    assert matches(parsed, metadata) is passes
    assert rows_matching(parsed, index(tmp_path, [metadata]), 1).tolist() == [passes]


def test_a_field_that_nobody_has_matches_nothing_and_its_negation_everything(tmp_path: Path) -> None:
    postings = index(tmp_path, [{"a": 1}, {}])
    assert not rows_matching(Equals(field="x", value=1), postings, 2).any()
    assert rows_matching(Not(filter=Equals(field="x", value=1)), postings, 2).all()
    assert rows_matching(Exists(field="x", present=False), postings, 2).dtype == np.bool_


def test_keys_of_documents_and_tenants_are_out_of_a_filter_s_reach(tmp_path: Path) -> None:
    postings = index(tmp_path, [{"a": 1}])
    for field in ("\0d", "\0t", "d", "t", "\0", "\1"):
        assert not rows_matching(Exists(field=field, present=True), postings, 1).any()
