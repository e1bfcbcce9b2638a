"""A prompt's wording: a TOML file with the rules, the frame of a passage and the frame of the question.

    version      1
    system       the system message; left out: there is none. May hold {passages}
    passage      one passage: {label}, then {fence}, {title} and {text} within, then {fence} again
    question     the last user message: {question}, before it {passages} where `system` has not
    no_passages  stands for {passages} where there are none

Newlines at both ends of a value are dropped. A line that is only {title} goes where a passage has no title.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Self

from tritonrag_backends.prompting.placeholders import Pattern
from tritonrag_backends.prompting.settings import is_path
from tritonrag_client.errors import BadRequestError, NotFoundError

_FORMAT: Final = 1
_ALLOWED: Final = {
    "system": frozenset({"passages"}),
    "passage": frozenset({"label", "fence", "title", "text"}),
    "question": frozenset({"passages", "question"}),
    "no_passages": frozenset[str](),
}
_OPTIONAL: Final = frozenset({"system"})
_TITLED: Final = ["text", "title"]
_TITLE_LINE: Final = re.compile(r"^\{title\}\n", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """A template that was read and found sound. `fingerprint` is the sha256 of the file: part of cache keys."""

    name: str
    fingerprint: str
    system: Pattern | None
    passage: Pattern
    untitled_passage: Pattern
    question: Pattern
    no_passages: Pattern

    @classmethod
    def load(cls, name_or_path: str) -> Self:
        """Read a built-in template by name, or a file by path (it has a slash or ends in .toml).

        Raises NotFoundError where there is none, BadRequestError that names file and key where it is not sound.
        """
        raw = _read_file(Path(name_or_path)) if is_path(name_or_path) else _read_built_in(name_or_path)
        texts = _texts(raw, name_or_path)
        patterns = {
            key: Pattern.parse(text, allowed=_ALLOWED[key], place=f"{name_or_path}: {key}")
            for key, text in texts.items()
        }
        _require_passage_frame(patterns["passage"], name_or_path)
        _require_question_frame(patterns.get("system"), patterns["question"], name_or_path)
        untitled = _TITLE_LINE.sub("", texts["passage"])
        return cls(
            name=name_or_path,
            fingerprint=hashlib.sha256(raw).hexdigest(),
            system=patterns.get("system"),
            passage=patterns["passage"],
            untitled_passage=Pattern.parse(untitled, allowed=_ALLOWED["passage"], place=f"{name_or_path}: passage"),
            question=patterns["question"],
            no_passages=patterns["no_passages"],
        )


def built_in_templates() -> list[str]:
    """The names that `load` knows."""
    folder = files("tritonrag_backends.prompting") / "templates"
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def _read_built_in(name: str) -> bytes:
    names = built_in_templates()
    if name not in names:
        raise NotFoundError(
            f"there is no prompt template {name!r}; the built-in ones are {', '.join(names)}, a file of yours ends in .toml"
        )
    return (files("tritonrag_backends.prompting") / "templates" / f"{name}.toml").read_bytes()


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no prompt template {path}; mend the path, or name one of {', '.join(built_in_templates())}"
        ) from None
    except OSError as error:
        raise BadRequestError(f"the prompt template {path} can't be read: {error.strerror}; give a file") from error


def _texts(raw: bytes, place: str) -> dict[str, str]:
    """The values by key, newlines at both ends dropped; all there, none unknown, all of them text."""
    try:
        content = tomllib.loads(raw.decode())
    except ValueError as error:
        raise BadRequestError(f"{place} is no TOML in UTF-8: {error}; mend it there") from None
    version = content.pop("version", None)
    if version != _FORMAT or isinstance(version, bool):
        raise BadRequestError(f"{place}: version is {version!r}; write version = {_FORMAT}")
    _require_keys(content, place)
    return {key: value.strip("\n") for key, value in content.items()}


def _require_keys(content: Mapping[str, Any], place: str) -> None:
    for key, value in content.items():
        if key not in _ALLOWED:
            raise BadRequestError(f"{place} has the key {key!r}; the keys are version, {', '.join(_ALLOWED)}")
        if not isinstance(value, str) or not value.strip():
            raise BadRequestError(f"{place}: {key} is {value!r}; write some text, or leave an optional key out")
    missing = [key for key in _ALLOWED if key not in content and key not in _OPTIONAL]
    if missing:
        raise BadRequestError(f"{place} lacks {', '.join(missing)}; write it, a built-in template shows how")


def _require_passage_frame(passage: Pattern, place: str) -> None:
    """What a passage's author wrote must stand between two fences, what we write of it outside."""
    outer, inner = passage.names[:1] + passage.names[-1:], passage.names[1:-1]
    if passage.names[:1] == ("label",):
        outer, inner = passage.names[1:2] + passage.names[-1:], passage.names[2:-1]
    if passage.names.count("label") != 1 or outer != ("fence", "fence") or sorted(inner) not in (["text"], _TITLED):
        raise BadRequestError(
            f"{place}: passage has {_braced(passage.names)}; write {{label}}, {{fence}}, {{title}}, {{text}}, {{fence}} in this"
            " order, the title as you like: label outside and the rest inside the fences"
        )


def _require_question_frame(system: Pattern | None, question: Pattern, place: str) -> None:
    """The passages stand in one place, and before the question: what comes before the question can be reused."""
    in_system = system.names if system else ()
    if (in_system, question.names) not in {((), ("passages", "question")), (("passages",), ("question",))}:
        raise BadRequestError(
            f"{place}: system has {_braced(in_system)} and question has {_braced(question.names)}; write {{passages}} once in"
            " one of them, and {question} once in question, behind the passages"
        )


def _braced(names: tuple[str, ...]) -> str:
    return ", ".join(f"{{{name}}}" for name in names) or "no placeholder"
