"""An HTTP relay for tests: passes requests on, keeps count of what was given, and fails or halts when told."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = {"connection", "keep-alive", "transfer-encoding"}


@dataclass
class Given:
    """One request that reached the server: its range, and how many bytes of the answer were passed on."""

    method: str
    path: str
    range: str
    status: int = 0
    n_bytes: int = 0


@dataclass
class Relay:
    """The relay as a test sees it.

    ``fail``: called with each request before it is passed on; "503", "drop" (the connection ends half-way
    through the body) or "" (pass on). ``halt_after``: requests with a range beyond so many wait for ``gate``.
    """

    url: str = ""
    given: list[Given] = field(default_factory=list)
    fail: Callable[[Given], str] = lambda _: ""
    halt_after: int | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    halted: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ranges(self) -> list[Given]:
        with self.lock:
            return [one for one in self.given if one.range and one.method == "GET"]

    def note(self, one: Given) -> bool:
        """Whether this request has to wait."""
        with self.lock:
            self.given.append(one)
            number = sum(bool(other.range) for other in self.given)
            return bool(one.range) and self.halt_after is not None and number > self.halt_after


@contextmanager
def run_relay(upstream: str) -> Iterator[Relay]:
    relay = Relay()
    target = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            one = Given(self.command, self.path, self.headers.get("Range", ""))
            if relay.note(one):
                relay.halted.set()
                relay.gate.wait()
                self.close_connection = True
                return
            failure = relay.fail(one)
            if failure == "503":
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.pass_on(one, half=failure == "drop")

        do_HEAD = do_GET

        def pass_on(self, one: Given, *, half: bool) -> None:
            connection = http.client.HTTPConnection(target.hostname or "", target.port)
            connection.request(one.method, one.path, headers=dict(self.headers.items()))
            answer = connection.getresponse()
            body = answer.read()
            one.status = answer.status
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.end_headers()
            if one.method == "GET":
                sent = body[: len(body) // 2] if half else body
                self.wfile.write(sent)
                one.n_bytes = len(sent)
            self.close_connection = half
            connection.close()

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients that go away are no trouble here."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    relay.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield relay
    finally:
        relay.gate.set()
        server.shutdown()
        server.server_close()
