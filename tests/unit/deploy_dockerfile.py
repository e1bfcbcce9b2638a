"""Reads a Dockerfile as far as our promises about it need, and says where it breaks one."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.exceptions import TyperException

from tritonrag.cli import app
from tritonrag.variables import refuse_unknown, variables_of
from tritonrag_backends.settings import load_settings
from tritonrag_client.errors import BadRequestError

OLDEST_TRITON = (26, 6)
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    keyword: str
    value: str

    def words(self) -> list[str]:
        """Of an exec form, or as a shell splits them; options (--from=...) left out."""
        text = self.value.strip()
        words = json.loads(text) if text.startswith("[") else shlex.split(text)
        return [word for word in words if not word.startswith("--")]

    def option(self, name: str) -> str | None:
        found = re.search(rf"--{name}=(\S+)", self.value)
        return found[1] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """Arguments before the first FROM, and the stages, each beginning with its FROM."""

    arguments: dict[str, str]
    stages: tuple[tuple[Instruction, ...], ...]

    @classmethod
    def parse(cls, text: str) -> "Dockerfile":
        arguments: dict[str, str] = {}
        stages: list[list[Instruction]] = []
        for instruction in _instructions(text):
            if instruction.keyword == "FROM":
                stages.append([])
            if stages:
                stages[-1].append(instruction)
            elif instruction.keyword == "ARG":
                name, _, default = instruction.value.partition("=")
                arguments[name] = default
        return cls(arguments=arguments, stages=tuple(map(tuple, stages)))

    def all(self, keyword: str) -> list[Instruction]:
        return [each for stage in self.stages for each in stage if each.keyword == keyword]

    def last(self, keyword: str) -> list[Instruction]:
        """Those of the last stage: what is in the image."""
        return [each for each in self.stages[-1] if each.keyword == keyword]

    def only(self, keyword: str) -> Instruction:
        (found,) = self.last(keyword)
        return found

    def images(self) -> list[str]:
        """What the stages begin with, arguments put in."""
        return [_VARIABLE.sub(lambda m: self.arguments[m[1]], each.value.split()[0]) for each in self.all("FROM")]

    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for each in self.last("ENV") for word in shlex.split(each.value))

    def healthcheck(self) -> list[str]:
        return list(json.loads(self.only("HEALTHCHECK").value.partition("CMD")[2]))

    def command_line(self) -> list[str]:
        return [*self.only("ENTRYPOINT").words(), *json.loads(self.only("CMD").value)]

    def ports(self) -> set[int]:
        return {int(word) for word in self.only("EXPOSE").words()}

    def sources(self) -> set[str]:
        """What is copied from the repository."""
        copies = [each for each in self.all("COPY") if each.option("from") is None]
        return {source for each in copies for source in each.words()[:-1]}


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, value = line.strip().partition(" ")
        yield Instruction(keyword=keyword.upper(), value=value)


def image_problems(image: str) -> Iterator[str]:
    """An image is pinned to a version; NVIDIA's Triton to one without the known holes."""
    name, _, tag = image.rpartition("/")[2].partition(":")
    if not re.match(r"v?\d+\.\d+", tag):
        yield f"{image} is not pinned to a version"
    elif name == "tritonserver":
        release = tuple(map(int, re.findall(r"\d+", tag)[:2]))
        if release < OLDEST_TRITON:
            yield f"{image} is older than 26.06 and has known security holes"


def dockerfile_problems(text: str, repository: Path) -> list[str]:
    """Every promise that this Dockerfile breaks, in words."""
    file = Dockerfile.parse(text)
    problems = [problem for image in file.images() for problem in image_problems(image)]
    problems += _user_problems(file)
    problems += [
        f"{source} is not in the repository" for source in file.sources() if not (repository / source).exists()
    ]
    problems += environment_problems(file.environment())
    problems += command_problems(file.command_line())
    problems += _packaging_problems(file, repository)
    if not file.only("ENTRYPOINT").value.startswith("["):
        problems.append("ENTRYPOINT is not in exec form: a shell would keep SIGTERM from `tritonrag serve`")
    return problems


def _user_problems(file: Dockerfile) -> Iterator[str]:
    keywords = [each.keyword for each in file.stages[-1]]
    users = file.last("USER")
    if not users:
        yield "the image runs as root: it has no USER"
        return
    user = users[-1].value.split(":")[0]
    if not user.isdigit() or int(user) == 0:
        yield f"USER is {user}, not a number above 0: Kubernetes can't see that it is not root"
    if "ENTRYPOINT" in keywords and keywords.index("USER") > keywords.index("ENTRYPOINT"):
        yield "USER comes after ENTRYPOINT"


def environment_problems(environment: dict[str, str]) -> Iterator[str]:
    """What the command itself would say of these variables."""
    options = frozenset(variables_of(typer.main.get_command(app)))
    for look in (lambda: refuse_unknown(environment, options), lambda: load_settings(environment)):
        try:
            look()
        except BadRequestError as error:
            yield str(error)


def parse_command(arguments: list[str]) -> dict[str, Any]:
    """The options as the real command line has them; raises TyperException, or KeyError for a command there isn't."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    with command.make_context(command.name, rest) as context:
        return dict(context.params)


def command_problems(words: list[str]) -> Iterator[str]:
    if words[0] != "tritonrag":
        yield f"{words[0]} is started, not tritonrag"
        return
    try:
        parse_command(words[1:])
    except (TyperException, KeyError) as error:
        yield f"`{shlex.join(words)}` does not parse: {error}"


def _packaging_problems(file: Dockerfile, repository: Path) -> Iterator[str]:
    """A wheel made of what is copied is whole, and of the version that the label says."""
    project = (repository / "pyproject.toml").read_text()
    packed = set(re.findall(r'^  "(\w+)/\w+",$', project, flags=re.MULTILINE))
    packed |= {"model_repository", "pyproject.toml", "README.md", "LICENSE"}
    yield from (f"{name} goes into the wheel and is not copied" for name in sorted(packed - file.sources()))
    version = tomllib.loads(project)["project"]["version"]
    if f'org.opencontainers.image.version="{version}"' not in file.only("LABEL").value:
        yield f"its label does not say version {version}"
