"""What the tests of documents share: texts, and metadata that JSON can carry."""

from hypothesis import strategies as st

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
not_empty = text.filter(bool)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(not_empty, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
metadata = st.dictionaries(not_empty.filter(lambda key: key != "tenant"), json_values, max_size=4)
