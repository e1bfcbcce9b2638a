"""`tritonrag ask` against a server that answers by a script."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.client.client_double import ANSWER, BROKEN_OFF, ScriptedTriton, error, final, running, says

from tritonrag import cli

Capture = pytest.CaptureFixture[str]
TURNS = [{"role": "user", "content": "Who is Ada?"}, {"role": "assistant", "content": "A mathematician [1]. é"}]
COMPACT = json.dumps(TURNS, ensure_ascii=False, separators=(",", ":")).encode()


pytestmark = pytest.mark.usefixtures("nothing_set")


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedTriton]:
    scripted = ScriptedTriton()
    scripted.script = [ANSWER]
    with running(scripted) as url:
        monkeypatch.setenv("TRITONRAG_URL", url)
        yield scripted


def ask(*options: str) -> int:
    return cli.run_command(["ask", "Who?", *options])


def test_an_answer_is_printed_with_its_sources(triton: ScriptedTriton, capsys: Capture) -> None:
    assert ask() == 0
    assert capsys.readouterr() == ("Hello world [1]\n  [1] t  u:0-1\n", "")
    assert triton.inputs() == {"text_input": ([1], [b"Who?"]), "stream": ([1], [True])}


def test_every_option_reaches_the_server(triton: ScriptedTriton) -> None:
    Path("turns.json").write_text(json.dumps(TURNS))
    numbers = ("--max-tokens", "9", "--temperature", "0.5", "--top-p", "0.25", "--seed", str(2**63))
    words = ("--stop-word", "END", "--stop-word", "two words", "--lora-name", "law", "--history", "turns.json")
    assert ask(*numbers, *words, "--strict", "--no-stream") == 0
    assert triton.inputs() == {
        "text_input": ([1], [b"Who?"]),
        "max_tokens": ([1], [9]),
        "temperature": ([1], [0.5]),
        "top_p": ([1], [0.25]),
        "seed": ([1], [2**63]),
        "stop_words": ([2], [b"END", b"two words"]),
        "lora_name": ([1], [b"law"]),
        "history": ([1], [COMPACT]),
        "strict": ([1], [True]),
    }


def test_every_option_can_come_from_its_variable(triton: ScriptedTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("turns.json").write_text(json.dumps(TURNS))
    for name, value in {
        "TEMPERATURE": "0.5",
        "TOP_P": "0.25",
        "SEED": "7",
        "STOP_WORD": "END STOP",
        "LORA_NAME": "law",
        "STRICT": "1",
        "HISTORY": "turns.json",
    }.items():
        monkeypatch.setenv(f"TRITONRAG_{name}", value)
    assert ask() == 0
    assert triton.inputs() == {
        "text_input": ([1], [b"Who?"]),
        "stream": ([1], [True]),
        "temperature": ([1], [0.5]),
        "top_p": ([1], [0.25]),
        "seed": ([1], [7]),
        "stop_words": ([2], [b"END", b"STOP"]),
        "lora_name": ([1], [b"law"]),
        "strict": ([1], [True]),
        "history": ([1], [COMPACT]),
    }


def test_a_history_can_come_from_stdin(triton: ScriptedTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(COMPACT)))
    assert ask("--history", "-") == 0
    assert triton.inputs()["history"] == ([1], [COMPACT])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"{", "Expecting"),
        (b'{"role": "user"}', "dict, not a list"),
        (b'[{"role": "user", "content": 3}]', "element 0"),
        (b'[{"role": "system", "content": "obey"}]', "'system'"),
        (b'["\xff"]', "can't decode"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_history_that_is_no_conversation_is_told_before_the_server_is_asked(
    triton: ScriptedTriton, capsys: Capture, text: bytes, named: str
) -> None:
    Path("turns.json").write_bytes(text)
    assert ask("--history", "turns.json") == 2
    err = capsys.readouterr().err
    assert "--history is turns.json" in err
    assert named in err
    assert "give a JSON list" in err
    assert triton.lives == 0


def test_a_history_that_is_not_there_is_named(triton: ScriptedTriton, capsys: Capture) -> None:
    assert ask("--history", "nowhere.json") == 2
    assert "--history is nowhere.json, which can't be read" in capsys.readouterr().err
    assert triton.lives == 0


@pytest.mark.parametrize("options", [(), ("--no-stream",)])
def test_an_answer_that_broke_off_is_printed_then_told_and_is_exit_status_1(
    triton: ScriptedTriton, capsys: Capture, options: tuple[str, ...]
) -> None:
    triton.script = [BROKEN_OFF]
    assert ask(*options) == 1
    out, err = capsys.readouterr()
    assert out == "Hello \n  [1] t  u:0-1\n"
    assert err == "degraded: the engine went away\nthe answer broke off; what came is not the whole of it\n"


def test_an_answer_that_broke_off_is_one_line_of_json_and_exit_status_1(
    triton: ScriptedTriton, capsys: Capture
) -> None:
    triton.script = [BROKEN_OFF]
    assert ask("--json") == 1
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert (answer["text"], answer["finish_reason"], answer["degraded"]) == ("Hello ", "error", "the engine went away")
    assert err == ""


def test_an_answer_that_is_refused_for_being_degraded_is_one_line_and_exit_status_1(
    triton: ScriptedTriton, capsys: Capture
) -> None:
    triton.script = [says(final(error("internal: the engine timed out, and the request is strict")))]
    assert ask("--strict") == 1
    assert capsys.readouterr() == ("", "tritonrag: internal: the engine timed out, and the request is strict\n")
