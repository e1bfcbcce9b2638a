"""Servers to measure that need no library: exact search over two passages, by the peers' protocol."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

ANSWER = {"ids": [7, 8], "scores": [0.9, 0.8], "passages": [{"text": "seven"}, {"text": "eight"}]}
# A peer of its own process, whose child has a session of its own; `{on_term}` is what it does on SIGTERM.
SCRIPT = """
import http.server, json, os, signal, subprocess, sys
signal.signal(signal.SIGTERM, {on_term})
deaf = "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"
child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({{"ids": [child.pid], "scores": [1.0], "passages": [{{"text": asked["question"]}}]}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PEER_PORT"])), Handler).serve_forever()
"""


@dataclass
class Toy:
    """What a toy server saw."""

    port: int = 0
    questions: list[str] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    together: int = 0
    most_together: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def toy_server(answer: Callable[[str], object] = lambda _: ANSWER, *, status: int = 200) -> Iterator[Toy]:
    """Serve in a thread."""
    toy, loop, ready = Toy(), asyncio.new_event_loop(), threading.Event()

    async def retrieve(request: web.Request) -> web.Response:
        toy.together += 1
        toy.most_together = max(toy.most_together, toy.together)
        toy.connections.add(request.transport)
        question = (await request.json())["question"]
        toy.questions.append(question)
        await asyncio.sleep(0)
        toy.together -= 1
        return web.Response(body=json.dumps(answer(question)), status=status)

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/retrieve", retrieve)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        toy.port = runner.addresses[0][1]
        return runner

    def serve() -> None:
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(30)
    try:
        yield toy
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
