"""A server that speaks the part of the Kubeflow Model Registry's REST API that its official client uses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/api/model_registry/v1/"
KINDS = ("registered_models", "model_versions", "model_artifacts")


class Records:
    """What was registered: models, versions and artifacts by id."""

    def __init__(self) -> None:
        self.url = ""
        self.kept: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}

    def only(self, kind: str) -> list[dict[str, Any]]:
        return list(self.kept[kind].values())

    def add(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        number = str(1 + sum(len(rows) for rows in self.kept.values()))
        times = {"createTimeSinceEpoch": "1", "lastUpdateTimeSinceEpoch": "1"}
        self.kept[kind][number] = {**body, "id": number, **times}
        return self.kept[kind][number]

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """One request."""
        parts = path.removeprefix(API).split("/")
        match (method, *parts):
            case ("GET", "registered_model" | "model_version" as kind):
                parent = query.get("parentResourceId")
                rows = [row for row in self.only(f"{kind}s") if row["name"] == query.get("name")]
                rows = [row for row in rows if parent is None or row.get("registeredModelId") == parent]
                return (200, rows[0]) if rows else (404, {"code": "404", "message": "not found"})
            case ("GET", "registered_models"):
                rows = self.only("registered_models")
                return 200, {"items": rows, "size": len(rows), "pageSize": 100, "nextPageToken": ""}
            case ("GET", ("registered_models" | "model_versions") as kind, number):
                return 200, self.kept[kind][number]
            case ("POST", ("registered_models" | "model_versions") as kind):
                return 201, self.add(kind, body)
            case ("POST", "registered_models", number, "versions"):
                return 201, self.add("model_versions", {**body, "registeredModelId": number})
            case ("POST", "model_versions", number, "artifacts"):
                return 201, self.add("model_artifacts", {**body, "modelVersionId": number})
            case ("PATCH", ("registered_models" | "model_versions") as kind, number):
                self.kept[kind][number] |= body
                return 200, self.kept[kind][number]
        return 404, {"code": "404", "message": f"{method} {path}"}


@contextmanager
def model_registry_server() -> Iterator[Records]:
    records = Records()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            split = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(split.query).items()}
            status, answer = records.answer(self.command, split.path, query, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = handle_one

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    records.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield records
    finally:
        server.shutdown()
