"""What each fault costs the callers, and how soon everything is answered again.

python benchmarks/serving/faults.py [BUNDLE] [--backend torchserve-http|torchserve-grpc]

Eight clients ask for the same slice without pause while one thing goes wrong. Counted: answers, wrong answers (they
differ from the first one), refusals (429, 503), other statuses, and requests without any answer. ``recovery_s`` is
the time from the fault to the first right answer to a request sent after it; for faults of one caller alone it is the
longest time that another caller waited.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
from common import heads, machine, running, save, workspace

from serving.state import StackState
from slicewise.config import ServeConfig

CLIENTS, BEFORE_S, AFTER_S = 8, 2.0, 4.0
MALFORMED, SLOW_CALLERS = 1000, 20
ATOL = 1e-4
LIMIT_MB = 16


@dataclass
class Watch:
    """What the callers saw."""

    right: float
    counts: Counter[str] = field(default_factory=Counter)
    answered: list[tuple[float, float]] = field(default_factory=list)

    def note(self, sent: float, response: httpx.Response) -> None:
        """Count one answer."""
        if response.status_code == httpx.codes.OK:
            same = abs(response.json()["tumor_probability"] - self.right) < ATOL
            self.counts["right" if same else "wrong"] += 1
            if same:
                self.answered.append((sent, time.perf_counter()))
        else:
            self.counts["refused" if response.status_code in (429, 503) else str(response.status_code)] += 1

    def told(self, fault_at: float) -> dict[str, Any]:
        """The counts and the recovery."""
        after = [done - fault_at for sent, done in self.answered if sent >= fault_at]
        longest = max(done - sent for sent, done in self.answered)
        counts = {name: self.counts[name] for name in ("right", "wrong", "refused", "no_answer")}
        others = {name: n for name, n in self.counts.items() if name not in counts}
        recovery = round(min(after), 2) if after else None
        return counts | {"other": others, "recovery_s": recovery, "longest_wait_s": round(longest, 2)}


def body() -> dict[str, Any]:
    """One slice as npy."""
    buffer = io.BytesIO()
    np.save(buffer, heads(1)[0][0].astype(np.float32))
    return {"content": buffer.getvalue(), "headers": {"content-type": "application/x-npy"}}


async def classify(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/classify", **body())


@contextlib.asynccontextmanager
async def callers(url: str) -> AsyncIterator[Watch]:
    """Clients that ask until the block ends."""
    over = asyncio.Event()
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
        first = (await classify(client)).raise_for_status()
        watch = Watch(first.json()["tumor_probability"])

        async def one() -> None:
            while not over.is_set():
                sent = time.perf_counter()
                try:
                    watch.note(sent, await classify(client))
                except httpx.HTTPError:
                    watch.counts["no_answer"] += 1
                    await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(one()) for _ in range(CLIENTS)]
        await asyncio.sleep(BEFORE_S)
        yield watch
        over.set()
        await asyncio.gather(*tasks)


async def until_right(watch: Watch, since: float, most_s: float = 120.0) -> None:
    """Wait for a right answer to a request sent after ``since``, and a little longer."""
    while time.perf_counter() - since < most_s and not any(sent >= since for sent, _ in watch.answered):
        await asyncio.sleep(0.05)
    await asyncio.sleep(AFTER_S)


def workers(state: StackState) -> list[psutil.Process]:
    """The processes that hold the network."""
    children = psutil.Process(state.java_pid).children(recursive=True)
    return [process for process in children if "model_service_worker" in " ".join(process.cmdline())]


def kill_worker(state: StackState) -> None:
    """End one of them."""
    workers(state)[0].kill()


def kill_workers(state: StackState) -> None:
    """End all of them."""
    for process in workers(state):
        process.kill()


def kill_torchserve(state: StackState) -> None:
    """End the model server as a whole."""
    os.kill(state.java_pid, signal.SIGKILL)


async def half_bodies(state: StackState) -> None:
    """Callers that stop in the middle of their body; half of them hang up, the others stay silent for a while."""
    address = urlsplit(state.gateway_url)
    start = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n\x89PNG"
    lines = []
    for index in range(SLOW_CALLERS):
        line = socket.create_connection((address.hostname or "", address.port or 0))
        line.sendall(start)
        lines.append(line)
        if index % 2:
            line.close()
    await asyncio.sleep(AFTER_S)
    for line in lines:
        line.close()


async def oversized(state: StackState) -> None:
    """Bodies over the limit, with and without their length told."""
    large = bytes((LIMIT_MB + 1) << 20)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(large), 1 << 20):
            yield large[at : at + (1 << 20)]

    async with httpx.AsyncClient(base_url=state.gateway_url, timeout=120, trust_env=False) as client:
        for content in (large, pieces(), large, pieces()):
            answer = await client.post("/classify", content=content, headers={"content-type": "image/png"})
            if answer.status_code != httpx.codes.REQUEST_ENTITY_TOO_LARGE:
                raise SystemExit(f"an oversized body was answered {answer.status_code}")


async def malformed(state: StackState) -> None:
    """Random bytes under all content types and routes."""
    noise = np.random.default_rng(0)
    kinds = ("image/png", "application/x-npy", "application/json", "application/dicom", "application/octet-stream")
    routes = (
        "/classify",
        "/segment",
        "/predict_multitask",
        "/v1/models/slicewise:predict",
        "/v2/models/slicewise/infer",
    )
    async with httpx.AsyncClient(base_url=state.gateway_url, timeout=120, trust_env=False) as client:
        for index in range(MALFORMED):
            content = noise.bytes(int(noise.integers(1, 4000)))
            header = {"content-type": kinds[index % len(kinds)]}
            answer = await client.post(routes[index // len(kinds) % len(routes)], content=content, headers=header)
            if not 400 <= answer.status_code < 500:
                raise SystemExit(f"malformed request {index} was answered {answer.status_code}: {answer.text[:200]}")


async def during(state: StackState, fault: Callable[[StackState], Awaitable[None] | None]) -> dict[str, Any]:
    """One fault under load."""
    async with callers(state.gateway_url) as watch:
        at = time.perf_counter()
        going_on = fault(state)
        if going_on is not None:
            await going_on
        await until_right(watch, at)
    return watch.told(at)


async def full_queue(state: StackState) -> dict[str, Any]:
    """Far more callers at once than may wait."""
    async with httpx.AsyncClient(
        base_url=state.gateway_url, timeout=120, trust_env=False, limits=httpx.Limits(max_connections=None)
    ) as client:
        watch = Watch((await classify(client)).json()["tumor_probability"])

        async def one() -> None:
            sent = time.perf_counter()
            watch.note(sent, await classify(client))

        at = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(200)))
    return watch.told(at)


FAULTS: dict[str, Callable[[StackState], Awaitable[None] | None]] = {
    "one of two workers killed": kill_worker,
    "both workers killed": kill_workers,
    "half-sent bodies": half_bodies,
    "oversized bodies": oversized,
    "1,000 malformed requests": malformed,
    "TorchServe killed": kill_torchserve,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--backend", choices=("torchserve-http", "torchserve-grpc"), default="torchserve-http")
    given = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "backend": given.backend, "clients": CLIENTS, "faults": {}}
    config = ServeConfig(backend=given.backend, max_request_mb=LIMIT_MB, max_in_flight=8, max_waiting=32)
    with workspace(given.bundle) as (work, bundle), running(bundle, config, work / "stack") as state:
        result["faults"]["queue full (200 at once)"] = asyncio.run(full_queue(state))
        for name, fault in FAULTS.items():
            result["faults"][name] = asyncio.run(during(state, fault))
    save(f"faults_{given.backend.split('-')[1]}", result)


if __name__ == "__main__":
    main()
