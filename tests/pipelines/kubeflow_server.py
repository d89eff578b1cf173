"""A server on this machine that speaks the part of the Kubeflow Pipelines API (v2beta1) that the client uses.

It keeps what it is given, validates pipelines as protobuf, and lets a test decide what becomes of a run.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

API = "/apis/v2beta1"
MOMENT = "2026-01-01T00:00:{:02d}Z"


@dataclass
class Kubeflow:
    """What the server knows.

    Attributes:
        token: The one it takes; nothing for none.
        fault: (status, message) of every answer to a POST, or None.
        broken: So many of the next answers are a 503.
        progress: What becomes of a run each time it is read.
        logs: Pod → its log.
    """

    token: str = ""
    fault: tuple[int, str] | None = None
    broken: int = 0
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    progress: Callable[[dict[str, Any]], None] | None = None
    logs: dict[str, str] = field(default_factory=dict)
    url: str = ""


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def task(name: str, state: str, pod: str = "", error: str = "", seconds: int = 5) -> dict[str, Any]:
    """A task as the API tells of it."""
    found: dict[str, Any] = {
        "run_id": "r",
        "task_id": name,
        "display_name": name,
        "state": state,
        "start_time": MOMENT.format(0),
        "end_time": MOMENT.format(seconds) if state in ("SUCCEEDED", "FAILED") else "1970-01-01T00:00:00Z",
        "child_tasks": [{"pod_name": pod}] if pod else [],
    }
    return found | ({"error": {"code": 2, "message": error}} if error else {})


@contextmanager
def serve(state: Kubeflow) -> Iterator[Kubeflow]:
    """Serve on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(lambda path, query: get(state, path, query))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(lambda path, query: post(state, path, query, body))

        def answer(self, handle: Callable[[str, dict[str, list[str]]], Any]) -> None:
            parts = urlsplit(self.path)
            try:
                self.check()
                value = handle(parts.path, parse_qs(parts.query))
                self.send(200, value)
            except Refusal as error:
                self.send(error.status, {"error": str(error), "code": 2, "message": str(error), "details": []})

        def check(self) -> None:
            if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                raise Refusal(401, "Request header error: there is no valid user identity")
            if state.broken:
                state.broken -= 1
                raise Refusal(503, "upstream connect error")
            if state.fault and self.command == "POST":
                raise Refusal(*state.fault)

        def send(self, status: int, value: Any) -> None:
            text = isinstance(value, str)
            body = value.encode() if text else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if text else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def get(state: Kubeflow, path: str, query: dict[str, list[str]]) -> Any:
    if path == f"{API}/healthz":
        return {"multi_user": False}
    if path == f"{API}/experiments":
        return {"experiments": named(state.experiments, query)}
    if path == f"{API}/pipelines":
        return {"pipelines": named(state.pipelines, query)}
    if path == f"{API}/runs":
        wanted = query.get("experiment_id", [""])[0]
        runs = [run for run in state.runs.values() if wanted in ("", run["experiment_id"])]
        return {"runs": runs[::-1], "total_size": len(runs)}
    if found := re.fullmatch(rf"{API}/runs/([\w-]+)", path):
        return read_run(state, found.group(1))
    if found := re.fullmatch(r"/apis/v1alpha1/runs/[\w-]+/nodes/([\w-]+)/log", path):
        if found.group(1) not in state.logs:
            raise Refusal(404, f'pods "{found.group(1)}" not found')
        return state.logs[found.group(1)]
    raise Refusal(404, f"no such path {path}")


def read_run(state: Kubeflow, run_id: str) -> dict[str, Any]:
    if run_id not in state.runs:
        raise Refusal(404, f"Run {run_id} not found")
    run = state.runs[run_id]
    if state.progress:
        state.progress(run)
    return run


def named(items: dict[str, dict[str, Any]], query: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Those that the filter names."""
    text = query.get("filter", [""])[0]
    wanted = [part["stringValue"] for part in json.loads(text)["predicates"]] if text else None
    return [item for item in items.values() if wanted is None or item["display_name"] in wanted]


def post(state: Kubeflow, path: str, query: dict[str, list[str]], body: bytes) -> Any:
    if path.startswith(f"{API}/pipelines/upload"):
        return upload(state, path, query, body)
    value = json.loads(body)
    if path == f"{API}/experiments":
        return keep(state.experiments, "experiment_id", value)
    if path == f"{API}/runs":
        check_pipeline(value["pipeline_spec"])
        return keep(state.runs, "run_id", value | {"state": "PENDING"})
    if path == f"{API}/recurringruns":
        check_pipeline(value["pipeline_spec"])
        return keep(state.recurring, "recurring_run_id", value)
    raise Refusal(404, f"no such path {path}")


def upload(state: Kubeflow, path: str, query: dict[str, list[str]], body: bytes) -> Any:
    name = query["name"][0]
    content = re.search(rb"\r\n\r\n(.*)\r\n--", body, re.DOTALL)
    assert content is not None
    spec, platform = yaml.safe_load_all(content.group(1))
    check_pipeline({"pipeline_spec": spec, "platform_spec": platform})
    if path.endswith("upload_version"):
        version = {"display_name": name, "pipeline_id": query["pipelineid"][0], "pipeline_version_id": name}
        state.versions.append(version)
        return version
    if any(item["display_name"] == name for item in state.pipelines.values()):
        raise Refusal(409, f"a pipeline {name} exists already")
    return keep(state.pipelines, "pipeline_id", {"display_name": name})


def keep(items: dict[str, dict[str, Any]], key: str, value: dict[str, Any]) -> dict[str, Any]:
    made = value | {key: str(uuid.uuid4()), "created_at": MOMENT.format(0)}
    items[made[key]] = made
    return made


def check_pipeline(given: dict[str, Any]) -> None:
    """As Kubeflow does, by its protobuf."""
    try:
        json_format.ParseDict(given["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(given.get("platform_spec", {}), pipeline_spec_pb2.PlatformSpec())
    except (json_format.ParseError, KeyError) as error:
        raise Refusal(400, f"Invalid pipeline spec: {error}") from error
