"""`tritonrag search` against a server that finds by a script."""

import json
import os
from collections.abc import Iterator

import pytest
from tests.unit.client.client_double import ScriptedTriton, found, running

from tritonrag import cli

Capture = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("nothing_set")


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedTriton]:
    scripted = ScriptedTriton()
    with running(scripted) as url:
        monkeypatch.setenv("TRITONRAG_URL", url)
        yield scripted


def search(triton: ScriptedTriton, degraded: str, *options: str) -> int:
    triton.script = [lambda _request, _context: found(["q"], degraded=degraded)]
    return cli.run_command(["search", "Who?", *options])


def test_passages_are_printed_and_a_sound_index_is_not_talked_of(triton: ScriptedTriton, capsys: Capture) -> None:
    assert search(triton, "") == 0
    assert capsys.readouterr() == ("1. t u:0-1  0.5\n   q 0\n2. t u:0-1  0.5\n   q 1\n", "")


def test_what_the_index_gave_up_is_told_on_stderr(triton: ScriptedTriton, capsys: Capture) -> None:
    assert search(triton, "on the CPU") == 0
    out, err = capsys.readouterr()
    assert out.startswith("1. t")
    assert err == "degraded: on the CPU\n"


@pytest.mark.parametrize("degraded", ["", "on the CPU"])
def test_json_says_it_in_its_one_line(triton: ScriptedTriton, capsys: Capture, degraded: str) -> None:
    assert search(triton, degraded, "--json") == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert ([passage["passage_id"] for passage in said.pop("passages")], err) == ([0, 1], "")
    assert said == {"index_version": 3, "degraded": degraded}


def test_of_several_servers_one_that_is_there_is_enough(
    triton: ScriptedTriton, capsys: Capture, unused_tcp_port: int
) -> None:
    url = f"127.0.0.1:{unused_tcp_port}, {os.environ['TRITONRAG_URL']}"
    assert search(triton, "", "--url", url) == 0
    assert capsys.readouterr().out.startswith("1. t")


def test_each_of_several_addresses_needs_a_port(triton: ScriptedTriton, capsys: Capture) -> None:
    assert search(triton, "", "--url", "127.0.0.1:8001,localhost") == 2
    assert "'localhost'" in capsys.readouterr().err
