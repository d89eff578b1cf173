"""Back-pressure and body limits by themselves, and the limits that follow from the largest study."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from serving.gateway.admission import Admission
from serving.gateway.limits import LARGEST_AT_ONCE, BodyLimit
from serving.status import BackendError, BusyError, DeadlineError, UnknownVersionError, retry_headers, status_of
from serving.torchserve.archive import job_queue_size
from serving.torchserve.properties import ServerPorts, server_properties
from slicewise.config import ServeConfig
from slicewise.config.load import parse_override
from slicewise.errors import InputError

BRATS_VOXELS = 240 * 240 * 155


def test_admission_is_bounded_in_flight_in_the_queue_and_in_time() -> None:
    async def run() -> None:
        admission, leave = Admission(in_flight=2, waiting=1, wait_s=0.05), asyncio.Event()
        entered: list[str] = []

        async def caller(name: str) -> None:
            async with admission.admit(60):
                entered.append(name)
                await leave.wait()

        first, second = (asyncio.create_task(caller(name)) for name in "ab")
        await asyncio.sleep(0)
        waiting = asyncio.create_task(caller("c"))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="wait already"):
            await caller("d")
        with pytest.raises(BusyError, match="no turn"):
            await waiting
        # A caller that goes away while it waits takes nobody's place.
        gone = asyncio.create_task(caller("e"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        last = asyncio.create_task(caller("f"))
        await asyncio.sleep(0)
        leave.set()
        await asyncio.gather(first, second, last)
        assert entered == ["a", "b", "f"]
        await asyncio.gather(*(caller(name) for name in "gh"))

    asyncio.run(run())


class Client:
    """An ASGI client that sends given pieces and then goes silent."""

    def __init__(self, pieces: list[bytes], ends: bool = True) -> None:
        self.pieces = [
            {"type": "http.request", "body": piece, "more_body": not ends or index + 1 < len(pieces)}
            for index, piece in enumerate(pieces)
        ]
        self.sent: list[MutableMapping[str, Any]] = []

    async def receive(self) -> MutableMapping[str, Any]:
        if self.pieces:
            return self.pieces.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)

    def told(self) -> tuple[int, str, dict[bytes, bytes]]:
        start, body = self.sent
        return start["status"], orjson.loads(body["body"])["error"]["code"], dict(start["headers"])


SCOPE = {"type": "http", "method": "POST", "headers": [], "path": "/"}


def test_a_body_that_stops_and_too_many_bodies_at_once() -> None:
    async def run() -> None:
        release = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert len((await receive())["body"]) == 1 << 20
            await release.wait()

        limit = BodyLimit(app, 1, idle_s=0.05)
        slow = Client([b"x"], ends=False)
        await limit(dict(SCOPE), slow.receive, slow.send)
        assert slow.told()[:2] == (408, "slow_body")
        full = [Client([bytes(1 << 20)]) for _ in range(LARGEST_AT_ONCE)]
        held = [asyncio.create_task(limit(dict(SCOPE), client.receive, client.send)) for client in full]
        await asyncio.sleep(0)
        while any(client.pieces for client in full):
            await asyncio.sleep(0)
        late = Client([b"x"])
        await limit(dict(SCOPE), late.receive, late.send)
        status, code, headers = late.told()
        assert (status, code) == (429, "busy")
        assert int(headers[b"retry-after"]) > 0
        release.set()
        await asyncio.gather(*held)
        again = Client([bytes(1 << 20)])
        await limit(dict(SCOPE), again.receive, again.send)
        assert again.sent == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "http", "grpc", "retry"),
    [
        (BusyError("x"), 429, "RESOURCE_EXHAUSTED", True),
        (BackendError("x"), 503, "UNAVAILABLE", True),
        (DeadlineError("x"), 504, "DEADLINE_EXCEEDED", False),
        (UnknownVersionError("x"), 404, "NOT_FOUND", False),
        (InputError("x"), 400, "INVALID_ARGUMENT", False),
    ],
)
def test_statuses(error: Exception, http: int, grpc: str, retry: bool) -> None:
    status = status_of(error)
    assert (status.http, status.grpc, bool(retry_headers(error))) == (http, grpc, retry)


def test_every_limit_follows_from_the_largest_study(tmp_path: Path) -> None:
    serve = ServeConfig.model_validate(parse_override(f"max_study_voxels={BRATS_VOXELS}"))
    body = BRATS_VOXELS * 4 * 4
    assert body <= serve.max_request_mb << 20 < body + (1 << 20)
    assert ServeConfig().max_request_mb << 20 == ServeConfig().max_study_voxels * 16
    assert ServeConfig(max_study_voxels=BRATS_VOXELS, max_request_mb=4).max_request_mb == 4
    text = server_properties(ServerPorts(1, 2, 3, 4, 5), tmp_path / "m.mar", serve)
    values = dict(line.split("=", 1) for line in text.splitlines())
    assert body < int(values["max_request_size"]) <= serve.max_body_bytes
    assert job_queue_size(serve) > serve.max_in_flight


def test_nothing_can_be_loaded_into_torchserve(tmp_path: Path) -> None:
    serve = ServeConfig(backend="torchserve-grpc")
    text = server_properties(ServerPorts(1, 2, 3, 4, 5), tmp_path / "m.mar", serve, host="0.0.0.0")
    values = dict(line.split("=", 1) for line in text.splitlines())
    assert values["allowed_urls"] == "none"
    assert values["enable_model_api"] == "false"
    assert values["install_py_dep_per_model"] == "false"
    assert values["enable_envvars_config"] == "false"
    assert values["load_models"] == "slicewise=m.mar"
    assert values["management_address"].startswith("http://127.0.0.1")
    assert values["grpc_management_address"] == "127.0.0.1"
    assert values["grpc_inference_address"] == "0.0.0.0"
    assert "grpc_inference_address=127.0.0.1" in server_properties(
        ServerPorts(1, 2, 3, 4, 5), tmp_path / "m.mar", ServeConfig(), host="0.0.0.0"
    )
