"""A mixed load for minutes, and the memory of every process of the stack: the curve must end flat.

python benchmarks/serving/soak.py [BUNDLE] [--minutes M] [--backend KIND]

Eight clients send classifications, segmentations, explanations, uncertainty, bad files and files of many sizes.
``slope_mb_per_min`` is the least-squares slope over the second half, when buffers and caches are warm.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from common import BACKENDS, heads, machine, running, save, workspace

from serving.state import StackState
from slicewise.config import ServeConfig

CLIENTS, SAMPLE_S, MEGABYTE = 8, 5.0, 1 << 20
ROUTES = ("/classify", "/segment", "/classify/gradcam", "/segment/uncertainty?n_mc_samples=4")
SIDES = (64, 128, 240, 300)


def bodies() -> list[tuple[str, bytes]]:
    """Requests of all kinds: route and npy content, damaged in three of sixteen."""
    found = []
    for index, route in enumerate(
        ("/classify", "/segment", "/classify/gradcam", "/segment/uncertainty?n_mc_samples=4")
    ):
        for side in SIDES:
            buffer = io.BytesIO()
            np.save(buffer, heads(1, side)[0][0].astype(np.float32))
            damaged = (index + side) % 8 == 0
            found.append((route, buffer.getvalue()[:200] if damaged else buffer.getvalue()))
    return found


async def load(url: str, until: float, counts: Counter[str]) -> None:
    """One client."""
    requests = bodies()
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
        while time.monotonic() < until:
            for route, content in requests:
                answer = await client.post(route, content=content, headers={"content-type": "application/x-npy"})
                counts[str(answer.status_code)] += 1


def resident(state: StackState) -> dict[str, float]:
    """Megabytes of each kind of process of the stack; forked helpers are added up by kind."""
    sizes: Counter[str] = Counter()
    root = psutil.Process(state.pid)
    for process in [root, *root.children(recursive=True)]:
        try:
            words = " ".join(process.cmdline())
            kind = "gateway" if process.pid == state.pid else "jvm" if "java" in words.split(" ")[0] else "worker"
            sizes[kind] += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return {kind: round(size / MEGABYTE, 1) for kind, size in sizes.items()}


async def soak(state: StackState, minutes: float) -> dict[str, Any]:
    """The load, and a sample every few seconds."""
    counts: Counter[str] = Counter()
    start = time.monotonic()
    until = start + 60 * minutes
    clients = [asyncio.create_task(load(state.gateway_url, until, counts)) for _ in range(CLIENTS)]
    curve = []
    while time.monotonic() < until:
        curve.append({"s": round(time.monotonic() - start, 1)} | resident(state))
        await asyncio.sleep(SAMPLE_S)
    await asyncio.gather(*clients)
    late = curve[len(curve) // 2 :]
    times = [point["s"] / 60 for point in late]
    slopes = {
        kind: round(float(np.polyfit(times, [point.get(kind, 0.0) for point in late], 1)[0]), 2)
        for kind in late[-1]
        if kind != "s"
    }
    return {"statuses": dict(counts), "slope_mb_per_min": slopes, "curve": curve}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--backend", choices=BACKENDS, default="torchserve-http")
    given = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "backend": given.backend, "minutes": given.minutes}
    config = ServeConfig(backend=given.backend)
    with workspace(given.bundle) as (work, bundle), running(bundle, config, work / "stack") as state:
        result |= asyncio.run(soak(state, given.minutes))
    save(f"soak_{given.backend}", result)


if __name__ == "__main__":
    main()
