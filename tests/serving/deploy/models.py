"""Models that really answer: a predictor in this process behind HTTP, and the gateway as KServe starts it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
from api_servers import wait_for

from serving.environment import child_environment
from serving.gateway.inprocess import InProcessBackend
from serving.ports import LOOPBACK, free_port
from serving.status import error_body, status_of
from serving.torchserve.archive import build_archive
from serving.torchserve.jobs import Served
from slicewise.config import ModelConfig, ServeConfig, SliceConfig
from slicewise.errors import SliceWiseError
from slicewise.inference.bundle import Bundle, BundleMeta, load_bundle, write_bundle
from slicewise.inference.predictor import Predictor

# Three processes that import torch and KServe's SDK at once, on a machine that has other work.
START_S = 240.0
DESCRIBE = b'"describe"'


@dataclass(frozen=True)
class Model:
    """A packaged model that is served.

    Attributes:
        bundle: Its bundle.
        archive: Its ``.mar``.
        predictor: What serves it, with the switches for faults.
        gateway_url: The gateway in front.
    """

    bundle: Bundle
    archive: Path
    predictor: PredictorServer
    gateway_url: str

    @property
    def digest(self) -> str:
        return self.bundle.digest

    @property
    def name(self) -> str:
        return f"{self.bundle.meta.model_version}-{self.digest[:12]}"


class PredictorServer:
    """TorchServe's route with our handler's own answers; ``refuse_every`` and ``pause_s`` make it a bad one."""

    def __init__(self, bundle: Path) -> None:
        predictor = Predictor.load(bundle, "cpu", threads=1)
        config = ServeConfig()
        self.refuse_every = 0
        self.pause_s = 0.0
        self.asked = 0
        self._loop = asyncio.new_event_loop()
        self._backend = InProcessBackend(predictor, Served(predictor.bundle, config.model_name), config)
        self._server = ThreadingHTTPServer((LOOPBACK, 0), self._handler())
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}"
        for target in (self._loop.run_forever, self._server.serve_forever):
            threading.Thread(target=target, daemon=True).start()

    def answer(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        if DESCRIBE not in body:
            self.asked += 1
            time.sleep(self.pause_s)
            if self.refuse_every and self.asked % self.refuse_every == 0:
                return 500, b'{"code": 500, "message": "broken on purpose"}', {"content-type": "application/json"}
        try:
            future = asyncio.run_coroutine_threadsafe(self._backend.forward(body, headers), self._loop)
            found = future.result(60)
        except SliceWiseError as error:
            return status_of(error).http, orjson.dumps(error_body(error)), {"content-type": "application/json"}
        return 200, found.content, dict(found.headers)

    def reset(self) -> None:
        self.refuse_every, self.pause_s, self.asked = 0, 0.0, 0

    def close(self) -> None:
        self._server.shutdown()
        asyncio.run_coroutine_threadsafe(self._backend.close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, content, headers = answer(body, {name.lower(): value for name, value in self.headers.items()})
                self.send_response(status)
                for name, value in (headers | {"content-length": str(len(content))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *words: Any) -> None:
                pass

        return Handler


FIGURES = {"roc_auc": {"value": 0.9, "low": 0.8, "high": 0.95}}


def write_model(
    folder: Path, version: str, seed: int, *, opposite: bool = False, metrics: dict[str, Any] = FIGURES
) -> Path:
    """A bundle with seeded random weights; ``opposite`` calls tumour what the same weights call none."""
    import torch

    from slicewise.model.network import MultiTaskUNet

    torch.manual_seed(seed)
    weights = MultiTaskUNet(4, ModelConfig()).state_dict()
    if opposite:
        last = [name for name in weights if name.startswith("head")][-2:]
        weights |= {name: -weights[name] for name in last}
    meta = BundleMeta(
        architecture=ModelConfig(),
        preprocessing=SliceConfig(),
        model_version=version,
        metrics=metrics,
        data_digest="d" * 64,
    )
    write_bundle(folder / "bundle", weights, meta)
    return folder / "bundle"


@contextmanager
def served_models(bundles: list[Path], work: Path) -> Iterator[list[Model]]:
    """The bundles behind predictors and gateways, all started at once."""
    predictors = [PredictorServer(bundle) for bundle in bundles]
    ports, gateways = [free_port() for _ in bundles], []
    try:
        for predictor, port in zip(predictors, ports, strict=True):
            words = ["--predictor_host", predictor.url, "--http_port", str(port), "--grpc_port", str(free_port())]
            command = [sys.executable, "-m", "serving.gateway", "--model_name", "slicewise", *words]
            with (work / f"gateway-{port}.log").open("wb") as log:
                environment = {**os.environ, **(child_environment() or {})}
                gateways.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        urls = [f"http://{LOOPBACK}:{port}" for port in ports]
        for url in urls:
            wait_for(lambda url=url: _answers(url), f"{url} does not answer; see {work}", START_S)
        archives = [build_archive(bundle, bundle.parent / "archive", ServeConfig()) for bundle in bundles]
        yield [
            Model(load_bundle(bundle), archive, predictor, url)
            for bundle, archive, predictor, url in zip(bundles, archives, predictors, urls, strict=True)
        ]
    finally:
        for process in gateways:
            process.terminate()
            process.wait(30)
        for predictor in predictors:
            predictor.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/model/info", timeout=5).is_success
    except httpx.HTTPError:
        return False
