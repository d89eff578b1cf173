"""A server for tests that speaks the part of Kaggle's API which its official client uses to download a set."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SIGNATURE = "signature-that-must-not-show"


@dataclass
class KaggleServer:
    """What it has, whom it knows, and what it was asked.

    Attributes:
        sets: Archives by ``owner/name``.
        accounts: Values of the Authorization header that may download.
        token: An API token that is accepted.
        ranges: The ranges that were asked for, with what was given.
        drop_after: So many bytes of an answer's body, then the connection ends; used up by one answer each.
    """

    url: str = ""
    sets: dict[str, bytes] = field(default_factory=dict)
    accounts: set[str] = field(default_factory=set)
    token: str = ""
    ranges: list[tuple[str, int]] = field(default_factory=list)
    drop_after: list[int] = field(default_factory=list)


@contextmanager
def run_kaggle_server() -> Iterator[KaggleServer]:
    state = KaggleServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            drop = state.drop_after.pop(0) if state.drop_after and status in (200, 206) and len(body) > 1000 else None
            self.wfile.write(body[:drop])
            self.close_connection = drop is not None

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service = urlsplit(self.path).path.rpartition("/")[2]
            allowed = self.headers.get("Authorization", "") in {*state.accounts, f"Bearer {state.token}"}
            if service == "IntrospectToken":
                active = bool(state.token) and asked["token"] == state.token
                self.json(200, {"active": active, "username": "someone" if active else ""})
            elif not allowed:
                self.json(401, {"code": 401, "message": "Unauthenticated"})
            elif service == "DownloadDataset":
                name = f"{asked['ownerSlug']}/{asked['datasetSlug']}"
                if name == "closed/set":
                    self.json(403, {"code": 403, "message": "Forbidden"})
                elif name not in state.sets:
                    self.json(404, {"code": 404, "message": "Not found"})
                else:
                    self.answer(302, Location=f"{state.url}/blob/{name}?X-Goog-Signature={SIGNATURE}")
            else:
                self.json(404, {"code": 404, "message": service})

        def json(self, status: int, body: object) -> None:
            self.answer(status, json.dumps(body).encode(), Content_Type="application/json")

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if SIGNATURE not in parts.query or self.headers.get("Authorization"):
                self.answer(403)
                return
            body = state.sets[parts.path.removeprefix("/blob/")]
            etag = '"' + hashlib.sha256(body).hexdigest()[:20] + '"'
            if self.headers.get("If-Match", etag) != etag:
                self.answer(412)
                return
            match = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            start, stop = (int(match[1]), int(match[2]) + 1) if match else (0, len(body))
            if match:
                state.ranges.append((match[0], stop - start))
            self.answer(206 if match else 200, body[start:stop], ETag=etag, Accept_Ranges="bytes")

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients that go away are no trouble here."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
