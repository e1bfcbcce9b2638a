"""Templates are files, read strictly; what is put in is never read as a template."""

import hashlib
from pathlib import Path

import pytest

from tritonrag_backends.prompting.placeholders import Pattern
from tritonrag_backends.prompting.settings import PromptSettings
from tritonrag_backends.prompting.template import PromptTemplate, built_in_templates
from tritonrag_client.errors import BadRequestError, NotFoundError

GOOD = {
    "version": "1",
    "system": '"Rules. {passages}"',
    "passage": '"[{label}] <{fence}\\n{title}\\n{text}\\n{fence}>"',
    "question": '"{question}"',
    "no_passages": '"(none)"',
}


def written(folder: Path, **changes: str | None) -> Path:
    path = folder / "mine.toml"
    path.write_text("\n".join(f"{key} = {value}" for key, value in (GOOD | changes).items() if value is not None))
    return path


def test_every_built_in_template_is_sound() -> None:
    assert built_in_templates() == ["default", "one-message"]
    for name in built_in_templates():
        assert PromptTemplate.load(name).name == name


def test_a_file_of_ones_own_is_read_and_its_fingerprint_is_its_content(tmp_path: Path) -> None:
    path = written(tmp_path)
    template = PromptTemplate.load(str(path))
    assert template.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (
        PromptTemplate.load(str(written(tmp_path, system='"Other rules. {passages}"'))).fingerprint
        != template.fingerprint
    )


def test_a_template_may_do_without_a_system_message(tmp_path: Path) -> None:
    template = PromptTemplate.load(str(written(tmp_path, system=None, question='"{passages} {question}"')))
    assert template.system is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "2"}, "version is 2; write version = 1"),
        ({"version": None}, "version is None"),
        ({"sistem": '"x"'}, "the key 'sistem'; the keys are version, system"),
        ({"no_passages": None}, "lacks no_passages"),
        ({"no_passages": "3"}, "no_passages is 3"),
        ({"no_passages": '" "'}, "no_passages is ' '"),
        ({"no_passages": '"{text}"'}, r"no_passages has the placeholder \{text\}; it takes none"),
        ({"question": '"{questoin}"'}, r"question has the placeholder \{questoin\}; use \{passages\}, \{question\}"),
        ({"question": '"{question!r}"'}, r"question has the placeholder \{question\}"),
        ({"question": '"{question.x}"'}, r"\{question.x\}"),
        ({"question": '"{question} {"'}, "lone brace"),
        ({"question": '"Answer!"'}, "question has no placeholder"),
        ({"question": '"{question} {question}"'}, "once in question"),
        ({"question": '"{passages} {question}"'}, "once in one of them"),
        ({"system": '"Rules."'}, "system has no placeholder"),
        ({"system": None, "question": '"{question} {passages}"'}, "behind the passages"),
        ({"passage": '"[{label}] {text}"'}, "label outside and the rest inside the fences"),
        ({"passage": '"{title} [{label}] {fence} {text} {fence}"'}, "inside the fences"),
        ({"passage": '"{fence} [{label}] {text} {fence}"'}, "label outside"),
        ({"passage": '"{fence} {text} {fence}"'}, "label outside"),
        ({"passage": '"[{label}] {fence} {title} {fence}"'}, "inside the fences"),
    ],
)  # fmt: skip
def test_what_is_not_sound_is_refused_by_file_and_key_with_the_way_out(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    with pytest.raises(BadRequestError, match=message) as caught:
        PromptTemplate.load(str(written(tmp_path, **changes)))
    assert "mine.toml" in caught.value.message


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff = 1")
    with pytest.raises(BadRequestError, match=r"no TOML in UTF-8"):
        PromptTemplate.load(str(tmp_path / "mine.toml"))
    with pytest.raises(BadRequestError, match=r"can't be read"):
        PromptTemplate.load(f"{tmp_path}/")


@pytest.mark.parametrize("name", ["defualt", "nowhere/mine.toml", "../templates", ""])
def test_a_template_that_is_not_there_is_not_found_and_those_that_are_there_are_named(name: str) -> None:
    with pytest.raises((NotFoundError), match="default, one-message"):
        PromptTemplate.load(name)


def test_braces_are_written_twice_and_values_are_put_in_as_they_are() -> None:
    pattern = Pattern.parse("{{a}} {text}!", allowed=frozenset({"text"}), place="here")
    assert pattern.fill({"text": "{text} {{x}} {0}"}) == "{a} {text} {{x}} {0}!"


def test_a_path_in_the_settings_is_made_absolute_and_a_name_is_left() -> None:
    assert PromptSettings(template="mine.toml").template == str(Path("mine.toml").absolute())
    assert PromptSettings(template="one-message").template == "one-message"
