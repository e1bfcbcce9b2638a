"""HTTP that no client should send: a refusal or a closed connection, nothing told, and the next good request is answered.

Not sent here, because they kill Triton 2.51 (measured, each the first time): a body in a million chunks of a byte (6 MB), and JSON
nested deeper than its stack, 100,000 lists in 200 KB sent to `generate`, a million lists or objects to `infer`. A body of half a
megabyte that gzip blows up to 512 MB does not kill it, but its memory grows by as much.
"""

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, Final

import pytest

from tests.faults.hostile import LEAKS, QUESTION, Known, all_live, processes
from tests.server.wire import Wire
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer

READ_S: Final = 3.0  # for what nothing may come after
BODY: Final = json.dumps({"text_input": QUESTION}).encode()
INFER: Final = json.dumps(
    {"inputs": [{"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": [QUESTION]}]}
).encode()
GENERATE: Final = "/v2/models/rag/generate"
GENERATE_STREAM: Final = "/v2/models/rag/generate_stream"
INFER_PATH: Final = "/v2/models/retrieve/infer"


@pytest.fixture(scope="module")
def well(wire: Wire) -> Known:
    return Known.ask(wire)


@pytest.fixture
def known(server: RunningServer, wire: Wire, well: Known) -> Iterator[Known]:
    """What is answered before a test is answered after it, by the same processes."""
    pids = processes(server)
    yield well
    assert all_live(pids), "a process of the server ended"
    assert json.loads(wire.post(GENERATE, BODY)[1])["text_output"].encode() == well.text


def connect(server: RunningServer) -> socket.socket:
    return socket.create_connection((server.host, server.http_port), timeout=20)


def message(line: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    told = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    head = "\r\n".join([line, *(f"{name}: {value}" for name, value in told.items() if value)])
    return head.encode("latin-1") + b"\r\n\r\n" + body


def post(path: str, body: bytes, **headers: str) -> bytes:
    return message(f"POST {path} HTTP/1.1", {name.replace("_", "-"): value for name, value in headers.items()}, body)


def say(server: RunningServer, data: bytes) -> bytes:
    """Everything that comes back until the server closes, or is silent for READ_S behind an answer that is whole."""
    with connect(server) as connection:
        return exchange(connection, data)


def exchange(connection: socket.socket, data: bytes) -> bytes:
    received = b""
    try:
        connection.sendall(data)
        connection.settimeout(READ_S)
        while chunk := connection.recv(65536):
            received += chunk
            if is_whole(received):
                break
    except (TimeoutError, ConnectionError):  # it waits for more, or hangs up in the middle
        pass
    return received


def is_whole(received: bytes) -> bool:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return b"chunked" in head.lower() and body.endswith(b"0\r\n\r\n")


def status(answer: bytes) -> int:
    """Of the first response; 0 where the server hung up or is still waiting."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def content(answer: bytes) -> bytes:
    """The body of a whole response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return body
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        parts.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return b"".join(parts)


def tells_nothing(answer: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    told = LEAKS.search(body.decode(errors="replace"))
    assert told is None, f"{body[:300]!r} tells {told.group()!r} behind {head[:80]!r}"


BROKEN_JSON: Final = {
    "nothing": b"",
    "half": b'{"text_input": "a"',
    "a list": b"[]",
    "a number": b"3",
    "null": b"null",
    "two": b"{}{}",
    "bytes": bytes(range(256)),
    "a NUL": b'{"text_input": "\0"}',
    "no UTF-8": b'{"text_input": "\xff\xfe"}',
    "a lone surrogate": b'{"text_input": "\\ud800"}',
    "a list of texts": b'{"text_input": ["a", "b"]}',
    "an object": b'{"text_input": {"a": 1}}',
    "a number for a text": b'{"text_input": 3}',
    "a huge number": b'{"text_input": "a", "max_tokens": 1e400}',
    "a number of many digits": b'{"text_input": "a", "max_tokens": ' + b"9" * 400 + b"}",
    "NaN": b'{"text_input": "a", "temperature": NaN}',
    "a key twice": b'{"text_input": "a", "text_input": "b"}',
    "an odd key": b'{"text_input": "a", "": 1, "\\u202e": {"a": []}}',
    "nested a little": b'{"text_input": ' + b"[" * 200 + b"]" * 200 + b"}",
    "a megabyte": json.dumps({"text_input": "x" * 2**20}).encode(),
}


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("path", [GENERATE, GENERATE_STREAM, INFER_PATH])
@pytest.mark.parametrize("case", BROKEN_JSON)
def test_a_body_that_is_no_request_is_refused(server: RunningServer, path: str, case: str) -> None:
    answer = say(server, post(path, BROKEN_JSON[case]))
    assert 400 <= status(answer) < 600 or b'"error"' in answer or case == "a key twice", answer[:300]
    tells_nothing(answer)


def infer(**changes: Any) -> bytes:
    """The body of an inference with something of its input changed."""
    asked = json.loads(INFER)
    asked["inputs"][0] |= changes
    return json.dumps(asked).encode()


BROKEN_INFERENCE: Final = {
    "a negative shape": infer(shape=[-1, 1]),
    "a huge shape": infer(shape=[2**40, 1]),
    "a shape over 64 bits": infer(shape=[2**70, 1]),
    "a shape that is a text": infer(shape="1,1"),
    "a shape of fractions": infer(shape=[1.5, 1]),
    "no data": infer(data=[]),
    "too many data": infer(data=["a"] * 65),
    "data of other types": infer(data=[1, True, None, {}]),
    "data nested": infer(data=[[[["a"]]]]),
    "an unknown type": infer(datatype="TEXT"),
    "a type that is a number": infer(datatype=3),
    "no name": infer(name=""),
    "inputs that are no list": b'{"inputs": {"name": "text_input"}}',
    "inputs of nothing": b'{"inputs": [null, 3, []]}',
    "unknown shared memory": infer(data=[], parameters={"shared_memory_region": "x", "shared_memory_byte_size": 8}),
    "shared memory of a negative size": infer(
        data=[], parameters={"shared_memory_region": "x", "shared_memory_byte_size": -8}
    ),
    "an id that is a number": json.dumps({**json.loads(INFER), "id": 3}).encode(),
    "outputs that are none": json.dumps({**json.loads(INFER), "outputs": [{"name": "colour"}]}).encode(),
    "classification of nothing": json.dumps(
        {**json.loads(INFER), "outputs": [{"name": "scores", "parameters": {"classification": -1}}]}
    ).encode(),
}


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("case", BROKEN_INFERENCE)
def test_an_inference_that_does_not_hold_together_is_refused(server: RunningServer, case: str) -> None:
    answer = say(server, post(INFER_PATH, BROKEN_INFERENCE[case]))
    assert 400 <= status(answer) < 600 or case in TAKEN, answer[:300]
    tells_nothing(answer)


TAKEN: Final = {"a huge shape", "data nested"}  # Triton reads one text from either


def binary(size: object, raw: bytes) -> bytes:
    """A body of JSON with raw bytes behind it, which its JSON says are `size`."""
    header = {"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    return json.dumps({"inputs": [header]}).encode() + raw


LYING_LENGTHS: Final = {
    "more than there is": (binary(1000, b"\1\0\0\0a"), "json"),
    "less than there is": (binary(2, b"\1\0\0\0a"), "json"),
    "negative": (binary(-5, b"\1\0\0\0a"), "json"),
    "huge": (binary(2**63 - 1, b"\1\0\0\0a"), "json"),
    "a text": (binary("5", b"\1\0\0\0a"), "json"),
    "a string's length that lies": (binary(5, b"\xff\xff\xff\xffa"), "json"),
    "a string's length of nothing": (binary(3, b"\1\0\0"), "json"),
    "a header longer than the body": (binary(5, b"\1\0\0\0a"), "100000"),
    "a header of negative length": (binary(5, b"\1\0\0\0a"), "-1"),
    "a header of huge length": (binary(5, b"\1\0\0\0a"), str(2**64)),
    "a header of no length": (binary(5, b"\1\0\0\0a"), "0"),
    "a header whose length is a text": (binary(5, b"\1\0\0\0a"), "many"),
    "a header cut in two": (binary(5, b"\1\0\0\0a"), "20"),
}


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("case", LYING_LENGTHS)
def test_lengths_of_binary_data_that_lie_are_refused(server: RunningServer, case: str) -> None:
    body, told = LYING_LENGTHS[case]
    length = str(body.rindex(b"}") + 1) if told == "json" else told
    answer = say(server, post(INFER_PATH, body, Inference_Header_Content_Length=length))
    assert status(answer) == 0 or 400 <= status(answer) < 600, answer[:300]
    tells_nothing(answer)


ODD_MESSAGES: Final = {
    "a method that is none": message("FROBNICATE /v2 HTTP/1.1", {}),
    "DELETE": message(f"DELETE {GENERATE} HTTP/1.1", {}),
    "PUT": message(f"PUT {GENERATE} HTTP/1.1", {}, BODY),
    "TRACE": message("TRACE / HTTP/1.1", {}),
    "CONNECT": message("CONNECT localhost:22 HTTP/1.1", {}),
    "OPTIONS": message("OPTIONS * HTTP/1.1", {}),
    "GET where POST is meant": message(f"GET {GENERATE} HTTP/1.1", {}),
    "a method in small letters": message("get /v2 HTTP/1.1", {}),
    "no version": b"GET /v2\r\n\r\n",
    "a version of the future": message("GET /v2 HTTP/9.9", {}),
    "no such page": message("GET /admin HTTP/1.1", {}),
    "a way up": message("GET /v2/../../../etc/passwd HTTP/1.1", {}),
    "a way up, encoded": message("GET /v2/models/%2e%2e%2f%2e%2e%2fetc/config HTTP/1.1", {}),
    "a NUL in the path": message("GET /v2/models/rag%00/config HTTP/1.1", {}),
    "half an escape": message("GET /v2/models/%f HTTP/1.1", {}),
    "a path of 100,000 characters": message(f"GET /v2/models/{'x' * 100_000} HTTP/1.1", {}),
    "an absolute URL": message("GET http://localhost/v2 HTTP/1.1", {}),
    "a header of a megabyte": message("GET /v2 HTTP/1.1", {"X": "x" * 2**20}),
    "20,000 headers": message("GET /v2 HTTP/1.1", {f"X-{number}": "1" for number in range(20_000)}),
    "a header without a colon": b"GET /v2 HTTP/1.1\r\nHost localhost\r\n\r\n",
    "a folded header": b"GET /v2 HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "a NUL in a header": b"GET /v2 HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "line feeds alone": b"GET /v2 HTTP/1.1\nHost: localhost\n\n",
    "two lengths": b"POST /v2/models/rag/generate HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\n{}",
    "a length that is a text": message(f"POST {GENERATE} HTTP/1.1", {"Content-Length": "many"}, BODY),
    "a negative length": message(f"POST {GENERATE} HTTP/1.1", {"Content-Length": "-1"}, BODY),
    "a length over 64 bits": message(f"POST {GENERATE} HTTP/1.1", {"Content-Length": "9" * 30}, BODY),
    "a length and chunks": message(f"POST {GENERATE} HTTP/1.1", {"Transfer-Encoding": "chunked"}, BODY),
    "a chunk without a size": message(
        f"POST {GENERATE} HTTP/1.1", {"Content-Length": "", "Transfer-Encoding": "chunked"}, b"xyz\r\n{}\r\n0\r\n\r\n"
    ),
    "a chunk of negative size": message(
        f"POST {GENERATE} HTTP/1.1", {"Content-Length": "", "Transfer-Encoding": "chunked"}, b"-5\r\n{}\r\n0\r\n\r\n"
    ),
    "a chunk of huge size": message(
        f"POST {GENERATE} HTTP/1.1", {"Content-Length": "", "Transfer-Encoding": "chunked"}, b"ffffffffffffffff\r\n{}"
    ),
    "gzip that is none": post(GENERATE, BODY, Content_Encoding="gzip"),
    "gzip cut off": post(GENERATE, gzip.compress(BODY)[:-9], Content_Encoding="gzip"),
    "an encoding that is none": post(GENERATE, BODY, Content_Encoding="br"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
    "bytes": bytes(range(256)) * 40,
    "line ends": b"\r\n" * 10_000,
}


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("case", ODD_MESSAGES)
def test_what_is_no_http_or_no_call_is_refused(server: RunningServer, case: str) -> None:
    answer = say(server, ODD_MESSAGES[case])
    tells_nothing(answer)
    assert b"root:" not in answer
    assert status(answer) in {0, *range(300, 600)} or case in ANSWERED, answer[:300]


ANSWERED: Final = {  # odd, and good enough to be answered
    "a header of a megabyte", "20,000 headers", "a folded header", "line feeds alone", "a version of the future", "an absolute URL",
    "a NUL in a header", "a header without a colon", "no version", "two lengths", "an encoding that is none", "OPTIONS",
}  # fmt: skip


def test_half_requests_that_stay_open_hold_nobody_up(server: RunningServer, wire: Wire, known: Known) -> None:
    halves = (b"POST ", b"POST /v2/models/rag/generate HTTP/1.1\r\nHost: x\r\n", post(GENERATE, BODY)[:-5])
    with ExitStack() as open_ones:
        for number in range(99):
            connection = open_ones.enter_context(connect(server))
            connection.sendall(halves[number % len(halves)])
        for _ in range(10):
            code, answer = wire.post(GENERATE, BODY)
            assert code == 200
            assert json.loads(answer)["text_output"].encode() == known.text


def test_a_request_that_comes_byte_by_byte_is_answered_right_or_not_at_all(server: RunningServer, known: Known) -> None:
    """Triton 2.51 now and then loses part of a path that comes in pieces, and finds no such page."""
    data = post(GENERATE, BODY)
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for position in range(len(data) - 1):
            connection.sendall(data[position : position + 1])
        answer = exchange(connection, data[-1:])
    assert status(answer) in {200, 404}
    if status(answer) == 200:
        assert json.loads(content(answer))["text_output"].encode() == known.text


def test_requests_one_behind_the_other_are_answered_in_order(server: RunningServer, known: Known) -> None:
    """As far as they are answered: Triton 2.51 now and then says nothing to those behind a first one."""
    bad = post(GENERATE, b'{"text_input": ""}')
    with connect(server) as connection:
        connection.sendall(post(GENERATE, BODY) + bad + post(GENERATE, BODY))
        connection.settimeout(READ_S)
        received = b""
        with suppress(TimeoutError):
            while chunk := connection.recv(65536):
                received += chunk
                if received.count(b"HTTP/1.1 ") == 3 and is_whole(received[received.rindex(b"HTTP/1.1 ") :]):
                    break
    answers = [b"HTTP/1.1 " + part for part in received.split(b"HTTP/1.1 ")[1:]]
    assert answers
    assert [status(answer) for answer in answers] == [200, 400, 200][: len(answers)]
    for answer in (answer for answer in answers if status(answer) == 200 and is_whole(answer)):
        assert json.loads(content(answer))["text_output"].encode() == known.text


@pytest.mark.usefixtures("known")
def test_clients_that_hang_up_at_once_leave_nothing_running(server: RunningServer, wire: Wire) -> None:
    for path in (GENERATE, GENERATE_STREAM, INFER_PATH):
        for _ in range(20):
            with connect(server) as connection:
                connection.sendall(post(path, INFER if path == INFER_PATH else BODY))
    assert wait_until(lambda: wire.metric("tritonrag_generations_running") == 0)
    for model in ("retrieve", "generator", "rag"):
        assert wait_until(lambda model=model: wire.metric("nv_inference_pending_request_count", model=model) == 0)


def test_after_all_of_it_the_server_answers_as_before(wire: Wire, well: Known) -> None:
    assert Known.ask(wire) == well
