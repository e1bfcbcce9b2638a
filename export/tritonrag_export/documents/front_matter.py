"""Front matter: metadata in YAML between two lines of dashes at the head of a Markdown file, as Jekyll introduced it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

import yaml

from tritonrag_export.documents.errors import ContentError, FieldError
from tritonrag_export.documents.metadata import MOST_DEPTH, at, check_metadata, check_string, shown
from tritonrag_export.documents.text import one_line

MOST_CHARACTERS: Final = 65_536

_OPENING: Final = re.compile(r"---[ \t]*\n")
_CLOSING: Final = re.compile(r"^(?:---|\.\.\.)[ \t]*$\n?", re.MULTILINE)
_FIELD: Final = re.compile(r"^[\w.\"'-]+[ \t]*:(?:\s|$)", re.MULTILINE)
_BLANK_HEAD: Final = re.compile(r"[ \t]*\n")
_BLANK_TAIL: Final = re.compile(r"(?:^|\n)[ \t]*\n\Z")

# A value without quotes is what YAML 1.1 and YAML 1.2 both say, else text: so yes and 12:30 stay what the author wrote, and
# "12e5" what a program wrote.
_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEAN: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"(?:[-+]?[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TIME: Final = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:(?:[Tt]|[ \t]+)(?P<hour>[0-9]{1,2})(?P<rest>:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)"
    r"[ \t]*(?P<zone>[Zz]|[-+][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_MOST_DIGITS: Final = 20  # 64 bits and a sign


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontMatter:
    """What stands at the head of a file. `end` is the offset of the text behind it, 0 where there is none."""

    end: int = 0
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """Refuses what makes a short text a large value, or a plain one an object: anchors, aliases, tags, deep nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call] # types-PyYAML leaves it without types
        line = event.start_mark.line + 2
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise FieldError(f"line {line} holds an anchor or alias, {shown(event.anchor)}, expected the value itself")
        if getattr(event, "tag", None) is not None:
            raise FieldError(f"line {line} holds the tag {shown(event.tag)}, expected a value without one")
        if self._depth > MOST_DEPTH:
            raise FieldError(f"line {line} is nested more than {MOST_DEPTH} deep, expected a flatter value")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def read_front_matter(text: str) -> FrontMatter:
    """The front matter of a Markdown file that has been cleaned; an empty one where there is none.

    Quoted values are strings. Others are null, true, false, a decimal number, or a date or time, which becomes an ISO 8601
    string; all else, yes and 1e3 too, is the string that it is. `title` is taken out of the metadata.
    Raises ContentError for what stands between the two lines and is no YAML mapping, holds a `tenant` or is over its limits.
    """
    block, end = _find(text)
    if block is None:
        return FrontMatter()
    try:
        title, metadata = _read(block)
    except FieldError as error:
        raise ContentError(
            f"has front matter that can't be taken: {error}; correct or remove it (where its lines of dashes are mere rules, put "
            "blank lines between them and the text)"
        ) from error
    return FrontMatter(end=end, title=title, metadata=metadata)


def _find(text: str) -> tuple[str | None, int]:
    """The text between the two lines and the offset behind them.

    A line of dashes is a mere rule where no second one follows, and where blank lines tell so: on the inner side of both,
    or on that of one with nothing like a field between.
    """
    opening = _OPENING.match(text)
    closing = opening and _CLOSING.search(text, opening.end())
    if not opening or not closing:
        return None, 0
    block = text[opening.end() : closing.start()]
    blanks = bool(_BLANK_HEAD.match(block)) + bool(_BLANK_TAIL.search(block))
    is_rule = blanks > (1 if _FIELD.search(block) else 0)
    return (None, 0) if is_rule else (block, closing.end())


def _read(block: str) -> tuple[str | None, dict[str, Any]]:
    if len(block) > MOST_CHARACTERS:
        raise FieldError(f"it is {len(block)} characters long, over the limit of {MOST_CHARACTERS}")
    root = _compose(block)
    if root is None:
        return None, {}
    if not isinstance(root, yaml.MappingNode):
        raise FieldError(f"it is {shown(_value(root, ''))}, expected fields such as title: My page")
    title = _take_title(root)
    return title, check_metadata(_mapping(root, ""), place="")


def _compose(block: str) -> yaml.Node | None:
    try:
        return _Loader(block).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 2}: " if error.problem_mark else ""
        raise FieldError(f"{line}not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets escapes that are no character through
        raise FieldError(f"not YAML: {' '.join(str(error).split())}") from error


def _take_title(root: yaml.MappingNode) -> str | None:
    """The title as it is written, be it a word or a number; taken out of the mapping where it comes once."""
    titles = [pair for pair in root.value if pair[0].value == "title"]
    if len(titles) != 1:
        return None
    root.value.remove(titles[0])
    value = titles[0][1]
    if not isinstance(value, yaml.ScalarNode):
        raise FieldError(f"title is {shown(_value(value, 'title'))}, expected a string")
    is_null = value.style is None and value.value in _NULL
    return None if is_null else one_line(check_string(value.value, place="title")) or None


def _value(node: yaml.Node, place: str) -> object:
    if isinstance(node, yaml.ScalarNode):
        return _plain(node.value, place) if node.style is None else node.value
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place)
    return [_value(inner, f"{place}[{i}]") for i, inner in enumerate(node.value)]


def _mapping(node: yaml.MappingNode, place: str) -> dict[str, object]:
    """Keys are taken as written, so that `on` is no truth and `2024` no number."""
    found: dict[str, object] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise FieldError(f"{place or 'it'} has a list or an object for a key, expected a string")
        key = at(place, key_node.value)
        if key_node.value in found:
            raise FieldError(f"{key} stands twice, on line {key_node.start_mark.line + 2} too, expected once")
        found[key_node.value] = _value(value_node, key)
    return found


def _plain(text: str, place: str) -> object:
    """The value of a scalar without quotes."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        if len(text) > _MOST_DIGITS:
            raise FieldError(f"{place} is a number of {len(text)} digits, expected one of 64 bits, or quotes around it")
        return int(text)
    if _FLOAT.fullmatch(text) and not _has_leading_zero(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    time = _TIME.fullmatch(text)
    return _iso(time, place) if time else text


def _has_leading_zero(text: str) -> bool:
    """A number such as a postcode, which would lose its zero."""
    digits = text.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()


def _iso(time: re.Match[str], place: str) -> str:
    try:
        if time["hour"] is None:
            return date.fromisoformat(time["date"]).isoformat()
        zone = (time["zone"] or "").upper()
        return datetime.fromisoformat(f"{time['date']}T{time['hour']:0>2}{time['rest']}{zone}").isoformat()
    except ValueError as error:
        raise FieldError(f"{place} is {shown(time[0])}, which is no date: {error}") from error
