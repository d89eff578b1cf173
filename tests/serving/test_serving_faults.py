"""A real stack under faults: every accepted request is answered rightly or refused with a clear status."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from serving.local import start_detached, stop_stack
from serving.state import StackState
from slicewise.config import ServeConfig

LIMIT_MB = 4
CLIENTS = 24
REFUSALS = {429, 503}


@pytest.fixture(scope="module")
def tight(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackState]:
    """A stack in which few may wait."""
    config = ServeConfig(max_request_mb=LIMIT_MB, max_in_flight=2, max_waiting=2)
    state = start_detached(bundle_dir, None, config, tmp_path_factory.mktemp("tight"), os.getpid(), 120)
    yield state
    stop_stack(state)


@pytest.fixture(scope="module")
def png(head: NDArray[np.uint8], encoded: Callable[..., bytes]) -> bytes:
    return encoded(head)


async def classified(client: httpx.AsyncClient, png: bytes) -> httpx.Response:
    return await client.post("/classify", content=png, headers={"content-type": "image/png"})


def client_of(state: StackState) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=state.gateway_url, timeout=120, trust_env=False)


def require_answers(state: StackState, png: bytes) -> float:
    answer = httpx.post(
        f"{state.gateway_url}/classify", content=png, headers={"content-type": "image/png"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return float(answer.json()["tumor_probability"])


def test_a_full_queue_refuses_and_answers_rightly_the_rest(tight: StackState, png: bytes) -> None:
    right = require_answers(tight, png)

    async def run() -> list[httpx.Response]:
        async with client_of(tight) as client:
            return await asyncio.gather(*(classified(client, png) for _ in range(CLIENTS)))

    answers = asyncio.run(run())
    good = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(good) >= 4
    assert refused
    for answer in good:
        assert answer.json()["tumor_probability"] == pytest.approx(right, abs=1e-4)
    for answer in refused:
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["code"] == "busy"
    assert require_answers(tight, png) == pytest.approx(right, abs=1e-4)


def test_a_worker_killed_under_load_costs_no_wrong_answer(tight: StackState, png: bytes) -> None:
    right = require_answers(tight, png)
    killed: list[int] = []

    async def asking(client: httpx.AsyncClient, statuses: list[int], enough: asyncio.Event) -> None:
        """Ask until there were answers after the kill."""
        while not enough.is_set():
            answer = await classified(client, png)
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                assert answer.json()["tumor_probability"] == pytest.approx(right, abs=1e-4)
                if killed and psutil.pid_exists(killed[0]) is False:
                    enough.set()
            else:
                assert answer.status_code in REFUSALS, answer.text
                assert answer.json()["error"]["cure"]

    async def run() -> list[int]:
        statuses: list[int] = []
        enough = asyncio.Event()
        async with client_of(tight) as client, asyncio.timeout(120):
            await classified(client, png)
            callers = [asyncio.create_task(asking(client, statuses, enough)) for _ in range(4)]
            while len(statuses) < 4:
                await asyncio.sleep(0.01)
            for process in psutil.Process(tight.java_pid).children(recursive=True):
                if "model_service_worker" in " ".join(process.cmdline()):
                    killed.append(process.pid)
                    process.kill()
            await asyncio.gather(*callers)
        return statuses

    statuses = asyncio.run(run())
    assert killed
    assert 200 in statuses
    require_answers(tight, png)


@pytest.mark.parametrize("length", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
def test_a_half_sent_body_disturbs_nobody(tight: StackState, png: bytes, length: bytes) -> None:
    address = urlsplit(tight.gateway_url)
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n" + length + b"\r\n\r\n"
    for _ in range(20):
        with socket.create_connection((address.hostname, address.port or 0), timeout=30) as half:
            half.sendall(head + png[:100])
    require_answers(tight, png)
    open_now = [
        line for line in httpx.get(f"{tight.gateway_url}/metrics").text.splitlines() if "backend_waiting " in line
    ]
    assert open_now[-1].endswith(" 0.0")


def test_an_oversized_body_is_refused_by_its_length_before_it_is_sent(tight: StackState, png: bytes) -> None:
    address = urlsplit(tight.gateway_url)
    length = (LIMIT_MB + 1) << 20
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port or 0), timeout=30) as caller:
        caller.sendall(head.encode())
        answer = b"".join(iter(lambda: caller.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert f"{LIMIT_MB} MB".encode() in answer
    require_answers(tight, png)
