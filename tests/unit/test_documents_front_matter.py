"""Front matter becomes metadata or a reason why not; a rule stays a rule."""

from datetime import UTC, date, datetime

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonrag_client.contract import Passage
from tritonrag_export.documents.chunking import chunk
from tritonrag_export.documents.content import Content
from tritonrag_export.documents.errors import ContentError
from tritonrag_export.documents.format_markdown import read_markdown
from tritonrag_export.documents.front_matter import read_front_matter
from tritonrag_export.documents.metadata import check_metadata
from tritonrag_export.documents.model import Document


def page(matter: str) -> Content:
    return read_markdown(f"---\n{matter}\n---\n# Head\n\nText.\n".encode())


def reason(matter: str) -> str:
    with pytest.raises(ContentError) as caught:
        page(matter)
    return str(caught.value)


class Words:
    """A word is a token."""

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError(text)


def test_front_matter_becomes_title_and_metadata_and_is_no_text() -> None:
    content = page("title: My page\nlang: en\ntags: [a, b]\nauthor:\n  name: Ada\n  since: 2001")
    assert (content.title, content.text) == ("My page", "# Head\n\nText.\n")
    assert content.metadata == {"lang": "en", "tags": ["a", "b"], "author": {"name": "Ada", "since": 2001}}
    assert [(h.title, content.text[h.start : h.end]) for h in content.headings] == [("Head", "# Head\n")]


def test_its_metadata_reaches_every_passage_and_its_lines_reach_none() -> None:
    content = page("title: My page\nlang: en")
    document = Document(uri="u", title=content.title or "", text=content.text, metadata=content.metadata)
    (passage, *_) = chunk(document, Words())
    assert isinstance(passage, Passage)
    assert (passage.metadata, "lang" in passage.text) == ({"lang": "en"}, False)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("2.50", 2.5),
        ("1.0e+3", 1000.0),
        ("1e3", "1e3"),
        ("-.5", "-.5"),
        (".5", 0.5),
        ("true", True),
        ("null", None),
        ("", None),
        ('"12"', "12"),
        ("'true'", "true"),
        ("yes", "yes"),
        ("no", "no"),
        ("01234", "01234"),
        ("12:30", "12:30"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
        ("2024-02-29", "2024-02-29"),
        ("2024-02-29 3:04:05 +0200", "2024-02-29T03:04:05+02:00"),
        ("2024-02-29T03:04:05.5Z", "2024-02-29T03:04:05.500000+00:00"),
        ("2024-02-29T03:04", "2024-02-29T03:04:00"),
        ("|\n  two\n  lines", "two\nlines\n"),
    ],
)
def test_unquoted_values_are_plain_numbers_true_false_null_or_times_in_iso_8601_and_all_else_is_text(
    written: str, value: object
) -> None:
    read = page(f"key: {written}").metadata["key"]
    assert (read, type(read)) == (value, type(value))


def test_keys_are_text_as_written() -> None:
    assert page("on: 1\n2024: 2\nnull: 3").metadata == {"on": 1, "2024": 2, "null": 3}


@pytest.mark.parametrize(("written", "title"), [("1984", "1984"), ("2.10", "2.10"), ('" a  b "', "a b")])
def test_a_title_is_taken_as_written(written: str, title: str) -> None:
    assert page(f"title: {written}").title == title


@pytest.mark.parametrize("written", ["", "null", '""', "' '"])
def test_without_a_title_of_its_own_the_first_heading_is_the_title(written: str) -> None:
    content = page(f"title: {written}")
    assert (content.title, content.metadata) == ("Head", {})


@pytest.mark.parametrize("matter", ["", "# a comment"])
def test_front_matter_without_fields_is_taken_away(matter: str) -> None:
    content = read_markdown(f"---\n{matter}{matter and chr(10)}---\ntext".encode())
    assert (content.text, content.metadata) == ("text", {})


def test_three_dots_end_it_too_and_windows_line_ends_do_no_harm() -> None:
    assert read_markdown(b"---\r\nlang: en\r\n...\r\ntext").metadata == {"lang": "en"}


@pytest.mark.parametrize(
    "text",
    [
        "---\ntext that never closes it\n\n# Head\n",
        "---\nSome text.\n\n---\n\nMore.\n",
        "---\n\nSome text\n---\nMore.\n",
        "---\n\nNote: between two rules.\n\n---\nMore.\n",
        "---\n\n---\nMore.\n",
        "----\na: 1\n----\n",
        "text\n---\na: 1\n---\n",
        " ---\na: 1\n---\n",
    ],
)
def test_a_line_of_dashes_that_is_merely_a_rule_stays_text(text: str) -> None:
    content = read_markdown(text.encode())
    assert (content.text, content.metadata) == (text, {})


@pytest.mark.parametrize(
    ("matter", "told"),
    [
        ("a: b: c", "line 2: not YAML: mapping values are not allowed here"),
        ("a: 1\nb: [1, 2", "not YAML"),
        ("\ta: 1", "line 2: not YAML"),
        ("- a\n- b", "it is a list, expected fields"),
        ("just a string", 'it is "just a string", expected fields'),
        ("? [a]\n: b", "a list or an object for a key"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "b.c stands twice, on line 5 too"),
        ("title: a\ntitle: b", "title stands twice"),
        ("title: [a]", "title is a list, expected a string"),
        ("tenant: acme", 'tenant is "acme", but metadata sets no tenant: a side-car'),
        ("tenant:", "tenant is null, but metadata sets no tenant"),
        ("day: 2024-13-45", 'day is "2024-13-45", which is no date'),
        ("n: .nan", "n is NaN, expected a finite number"),
        ("a: {b: [1, .inf]}", "a.b[1] is Infinity"),
        ("n: 9223372036854775808", "n is 9223372036854775808, expected a whole number of 64 bits"),
        ("n: " + "9" * 5000, "n is a number of 5000 digits"),
        (r'a: "\0"', "without NUL and lone surrogates"),
        (r'a: "\ud800"', r'a is "\ud800", expected a string without NUL'),
        (r'a: "\UFFFFFFFF"', "not YAML"),
        ("a: &x 1\nb: *x", 'line 2 holds an anchor or alias, "x"'),
        ("a: !!python/object:os.system x", "line 2 holds the tag"),
        ("a: !!binary aGk=", "line 2 holds the tag"),
        ("a: " + "[" * 5000, "line 2 is nested more than 16 deep"),
    ],
)
def test_what_can_not_be_taken_is_a_reason_that_names_it(matter: str, told: str) -> None:
    assert told in reason(matter)


def test_a_yaml_bomb_is_refused_at_its_first_anchor() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    assert "line 2 holds an anchor" in reason(bomb)


def test_front_matter_over_its_limit_is_refused_with_both_numbers() -> None:
    assert "it is 70008 characters long, over the limit of 65536" in reason("a: 1\n#" + "x" * 70_001)


def test_a_reason_tells_the_way_out() -> None:
    assert "correct or remove it (where its lines of dashes are mere rules, put blank lines" in reason("- a")


yaml_bits = st.sampled_from(
    ["---\n", "...\n", "\n", "a: ", "title: ", "- ", "  ", "\t", "&x ", "*x", "!!int ", "!t ", "{", "}", "[", "]", ", ", '"',
     "'", "|\n", ">\n", "? ", ": ", "# ", "<<: ", "2024-01-01", "2024-99-99 1:00", "%YAML 1.2\n", "\\x", "\\UFFFFFFFF", "~", ".inf",
     "1e999", "9" * 30, "@", "`", "é", "\u2028", "\x85"]
)  # fmt: skip
any_matter = st.lists(yaml_bits | st.text(max_size=8), max_size=40).map("".join)


@settings(max_examples=600, deadline=None)
@given(matter=any_matter, closed=st.booleans())
def test_any_text_ends_in_a_document_or_a_reason(matter: str, closed: bool) -> None:
    data = f"---\n{matter}{chr(10) + '---' + chr(10) if closed else ''}Text.\n".encode()
    try:
        content = read_markdown(data)
    except ContentError:
        return
    assert check_metadata(dict(content.metadata)) == content.metadata
    assert "Text." in content.text
    assert all(0 <= h.start <= h.end <= len(content.text) for h in content.headings)


plain_text = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters="\x7f\x85\xa0\xad"), max_size=20
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | plain_text | st.dates(min_value=date(1000, 1, 1)) | st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants a naive bound
)  # fmt: skip
keys = plain_text.filter(lambda key: key not in {"", "title", "tenant"})
fields = st.dictionaries(
    keys, st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5), max_size=5
)


def iso(value: object) -> object:
    if isinstance(value, list):
        return [iso(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


@settings(deadline=None)
@given(values=fields)
def test_what_a_yaml_writer_writes_is_read_back(values: dict[str, object]) -> None:
    matter = yaml.safe_dump(values, allow_unicode=True, default_flow_style=False)
    found = read_front_matter(f"---\n{matter}---\n")
    assert found.metadata == {key: iso(value) for key, value in values.items()}
