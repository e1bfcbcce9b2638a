"""Every example in the README runs."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.server.wire import Wire
from tritonrag.launcher import RunningServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [
        line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")
    ]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_example(server: RunningServer, code: str) -> None:
    assert "127.0.0.1:8001" in code
    code = code.replace("127.0.0.1:8001", server.grpc_url)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"CSV.* \[1\]" if "sources" in code else r"\w.* \[\d\]", ended.stdout)
    assert "sources" not in code or "[1] csv" in ended.stdout


def test_curl_example(wire: Wire) -> None:
    (line,) = [command for command in commands() if command.startswith("curl")]
    words = shlex.split(line)
    (url,) = [word for word in words if word.startswith("localhost:8000")]
    status, body = wire.post(url.removeprefix("localhost:8000"), json.loads(words[words.index("-d") + 1]))
    assert status == 200
    assert body.startswith(b"data: {")


def test_every_command_that_is_named_exists_with_the_options_that_are_shown() -> None:
    named: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for page in PAGES:
        for words, rest in re.findall(r"(?:`|\$ |bin/)tritonrag ((?:index |export )?[a-z]+)([^`\n]*)", page):
            named[tuple(words.split())] |= set(re.findall(r"(?<=\s)--[a-z-]+", rest.partition("#")[0]))
    assert {"--filter", "--tenant"} <= named["search",]
    assert "--vectors-from" in named["index", "build"]
    command = Path(sys.executable).with_name("tritonrag")
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
    for words, options in sorted(named.items()):
        ended = subprocess.run(
            [command, *words, "--help"], capture_output=True, text=True, check=False, env=environment
        )
        assert ended.returncode == 0, (words, ended.stderr)
        assert options <= set(re.findall(r"--[a-z-]+", ended.stdout)), words


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`|^\$ make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target
