"""A model's own chat template: messages to the text that its tokenizer takes.

Rendered as transformers does it: Jinja2 in its immutable sandbox, with the functions that templates use.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tritonrag_backends.generation.engine import Message
from tritonrag_client.errors import BadRequestError, InternalError

_CONFIG_FILE: Final = "tokenizer_config.json"
_TEMPLATE_FILE: Final = "chat_template.jinja"
_SPECIAL: Final = ("bos_token", "eos_token", "unk_token", "pad_token")
# For a model that has none, such as one that was never tuned to chat.
_PLAIN: Final = (
    "{{ bos_token }}{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


class ChatTemplate:
    """Renders messages. Raises InternalError where the template is no template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self._special = dict(special_tokens)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise InternalError(f"the model's chat template can't be read: {error}; export the model again") from error

    @classmethod
    def read(cls, folder: Path) -> "ChatTemplate":
        """The one of a model's folder: chat_template.jinja, else what tokenizer_config.json holds, else `Role: text` lines.

        Raises InternalError for files that can't be read as such.
        """
        config = _read_config(folder / _CONFIG_FILE)
        file = folder / _TEMPLATE_FILE
        source = file.read_text(encoding="utf-8") if file.is_file() else _default_of(config.get("chat_template"))
        special = {name: _content(config[name]) for name in _SPECIAL if config.get(name)}
        return cls(source or _PLAIN, special)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt's text, up to where the answer begins. Raises jinja2.TemplateError where the template refuses the messages."""
        plain = [{"role": message.role, "content": message.content} for message in messages]
        return self._template.render(messages=plain, add_generation_prompt=True, **self._special)


def render_around_system(render: Callable[[Sequence[Message]], str], messages: Sequence[Message]) -> str:
    """The prompt's text; for templates that refuse a system role, or drop it, its text goes before the user's first message.

    Raises BadRequestError where the template refuses the messages even so.
    """
    system = [message.content.strip() for message in messages if message.role == "system"]
    try:
        text = render(messages)
        if all(content in text for content in system):
            return text
    except TemplateError:
        pass
    try:
        return render(without_system(messages))
    except TemplateError as error:
        raise BadRequestError(f"the model's chat template refuses these messages: {error}") from error


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The same without a system role: its text before the first message of the user."""
    system = [message.content for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    for place, message in enumerate(others):
        if message.role == "user":
            others[place] = Message(role="user", content="\n\n".join([*system, message.content]))
            break
    return others


class _GenerationTag(Extension):
    """`{% generation %}`, by which training marks the assistant's part; here what is inside stands as it is."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja2's extensions declare it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)  # noqa: DTZ005 - the date where the server is, as templates expect


def _tojson(value: Any, indent: int | None = None) -> str:  # noqa: ANN401 - whatever a template has
    return json.dumps(value, ensure_ascii=False, indent=indent)  # not Jinja2's own, which escapes for HTML


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InternalError(f"{file.name} of the language model is damaged: {error}; export the model again") from error
    return config if isinstance(config, dict) else {}


def _default_of(templates: object) -> str:
    """A template by itself, or the one named default of several."""
    if isinstance(templates, list):
        named = {one.get("name"): one.get("template") for one in templates if isinstance(one, dict)}
        templates = named.get("default", "")
    return templates if isinstance(templates, str) else ""


def _content(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else str(token.get("content", ""))
