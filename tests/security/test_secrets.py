"""Secrets are planted wherever the command takes one, and looked for in all that it says, logs, answers and shows in /proc."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tritonrag.processes import session_members
from tritonrag_backends.settings import Settings
from tritonrag_client import RagClient, Timeouts

TIMEOUT_S: Final = 120.0
QUESTION: Final = "How do I parse a JSON document?"
# By the variable that takes it; what stands in the value is looked for.
SECRETS: Final = {
    "TRITONRAG_OPENAI_API_KEY": "sk-canary-openai-4c1f",
    "OPENAI_API_KEY": "sk-canary-fallback-9b2e",
    "TRITONRAG_CACHE_REDIS_URL": "canary-redis-77d0",
    "TRITONRAG_PROMPT_FENCE_KEY": "canary-fence-1a5c",
    "TRITONRAG_TRTLLM_SALT_KEY": "canary-salt-e8f3",
}


class RefusingServer(http.server.BaseHTTPRequestHandler):
    """An OpenAI-compatible server that takes no key, and tells everybody which one it was sent."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        said = json.dumps(
            {"error": {"message": f"Incorrect API key provided: {self.headers['Authorization']}"}}
        ).encode()
        self.server.seen.append(self.headers["Authorization"])  # type: ignore[attr-defined]
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


@dataclass(slots=True)
class Refuser:
    """The server's address, and the headers that it was sent."""

    url: str
    seen: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def refuser() -> Iterator[Refuser]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RefusingServer)
    refuser = Refuser(f"http://127.0.0.1:{server.server_address[1]}/v1")
    server.seen = refuser.seen  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield refuser
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def environment(settings: Settings, refuser: Refuser) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TRITONRAG_", "OPENAI_"))}
    return {
        **clean,
        **SECRETS,
        "TRITONRAG_CACHE_REDIS_URL": f"redis://reader:{SECRETS['TRITONRAG_CACHE_REDIS_URL']}@127.0.0.1:1/0",
        "TRITONRAG_CACHE_STORE": "redis",
        "TRITONRAG_GENERATOR_ENGINE": "openai",
        "TRITONRAG_OPENAI_URL": refuser.url,
        "TRITONRAG_OPENAI_MODEL": "some-model",
        "TRITONRAG_INDEX": str(settings.index),
        "TRITONRAG_EMBEDDER_MODEL": str(settings.embedder.model),
        **{f"TRITONRAG_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS", "HEALTH")},
    }


@dataclass(frozen=True, slots=True)
class Told:
    """All that one run of `serve` told: to its caller, to its client, to its log, and to whoever looks into /proc."""

    answers: list[str]
    ready: dict[str, Any]
    output: str
    errors: str
    log: str
    command_lines: list[str]


@pytest.fixture(scope="module")
def told(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, refuser: Refuser) -> Told:
    log = tmp_path_factory.mktemp("log") / "triton.log"
    command = [program(), "serve", "--json", "--verbose", "--log-file", str(log)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            ready = json.loads(line) if line else {}
            assert ready, process.communicate(timeout=TIMEOUT_S)
            answers = asked(f"{ready['host']}:{ready['grpc_port']}")
            lines = [command_line(one.pid) for one in session_members(ready["triton_pid"])] + [
                command_line(process.pid)
            ]
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert refuser.seen == [f"Bearer {SECRETS['TRITONRAG_OPENAI_API_KEY']}"] * len(refuser.seen)
    assert refuser.seen, "the key was not even used"
    return Told(answers, ready, line + output, errors, log.read_text(errors="replace"), lines)


def program() -> str:
    return str(Path(sys.executable).with_name("tritonrag"))


def asked(url: str) -> list[str]:
    """Answers that the language model's server and Redis fail for, and an error."""
    with RagClient(url, timeouts=Timeouts(total_s=60)) as client:
        answers = [repr(client.ask(QUESTION)), repr(client.ask(QUESTION))]
        try:
            client.ask(QUESTION, strict=True)
        except Exception as error:  # noqa: BLE001 - whatever it says is looked at
            answers.append(repr(error))
    assert len(answers) == 3
    return answers


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def leaked(text: str) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret in text]


def test_serve_says_no_secret(told: Told) -> None:
    assert told.ready["grpc_port"]
    assert leaked(told.output + told.errors) == []


def test_no_answer_and_no_error_holds_a_secret(told: Told) -> None:
    assert "degraded" in told.answers[0]
    assert leaked("".join(told.answers)) == []


def test_the_log_holds_no_secret(told: Told) -> None:
    assert "generator" in told.log
    assert leaked(told.log) == []


def test_no_command_line_holds_a_secret_or_the_admin_key(told: Told) -> None:
    lines = "\n".join(told.command_lines)
    assert "tritonserver" in lines
    assert "stub" in lines
    assert leaked(lines) == []
    assert set(re.findall(r"tritonrag-admin=(\S+)", lines)) == {"*" * 43}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_doctor_says_no_secret(environment: dict[str, str], options: list[str]) -> None:
    done = subprocess.run([program(), "doctor", *options], env=environment, capture_output=True, text=True, check=False)
    assert "some-model" in done.stdout
    assert leaked(done.stdout + done.stderr) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"TRITONRAG_OPENAI_URL": "http://me:canary-redis-77d0@127.0.0.1/v1"},
        {"TRITONRAG_OPENAI_URL": "http://127.0.0.1/v1?api-key=canary-redis-77d0"},
        {"TRITONRAG_OPENAI_API_KEY": "sk-canary-openai-4c1f with a blank"},
        {"TRITONRAG_CACHE_REDIS_URL": "no-scheme-canary-redis-77d0"},
        {"TRITONRAG_OPENAI_APIKEY": "sk-canary-openai-4c1f"},
        {"TRITONRAG_OPENAI": '{"api_key": "sk-canary-openai-4c1f"}'},
    ],
    ids=["password in a URL", "key in a URL", "blank in a key", "no Redis URL", "misspelt", "a whole section"],
)
@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_secret_in_the_wrong_place_is_told_without_it(
    environment: dict[str, str], wrong: dict[str, str], command: str, tmp_path: Path
) -> None:
    given = {**environment, **wrong, "TMPDIR": str(tmp_path)}
    if "TRITONRAG_CACHE_REDIS_URL" in wrong:
        given["TRITONRAG_GENERATOR_ENGINE"] = "extractive"
    done = subprocess.run(
        [program(), command], env=given, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    logs = [path.read_text(errors="replace") for path in tmp_path.rglob("*.log")]
    assert leaked(done.stdout + done.stderr + "".join(logs)) == []
    if command == "serve":
        assert done.returncode != 0, done.stdout
        assert next(iter(wrong)).split("_")[1] in done.stderr
