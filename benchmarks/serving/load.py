"""Latency and throughput of every kind of request at 1, 4, 16 and 64 clients, for each backend.

python benchmarks/serving/load.py [BUNDLE] [--quick] [--backend KIND] [--seconds S]

The clients are asyncio tasks in this process, the stack has its own. Every answer is compared with the first one to
the same input; ``refused`` counts 429 and 503, ``wrong`` answers that differ, ``failed`` every other status.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from common import BACKENDS, heads, machine, percentiles, running, save, v2_request, workspace

from serving.codecs import v2
from slicewise.config import ServeConfig

CLIENTS = (1, 4, 16, 64)
INFER = "/v2/models/slicewise/infer"
ATOL = 1e-4
STUDY_SLICES, POLL_S = 8, 0.05


@dataclass(frozen=True)
class Kind:
    """One kind of request: where it goes and with what."""

    path: str
    body: bytes
    headers: dict[str, str]


def kinds() -> dict[str, Kind]:
    """All kinds."""
    image = heads(1)
    basic = {"modalities": "flair"}
    v2_kind = {
        "classify": {"tasks": "classify"},
        "segment": {"tasks": "classify,segment"},
        "conditional": {"tasks": "classify,segment", "conditional": True},
        "uncertainty": {"tasks": "classify,segment,uncertainty", "n_mc_samples": 10, "use_tta": True},
    }
    found = {name: Kind(INFER, *v2_request(image, basic | extra)) for name, extra in v2_kind.items()}
    buffer = io.BytesIO()
    np.save(buffer, np.stack([plane[0] for plane in heads(STUDY_SLICES, 128)]).astype(np.float32))
    path = "/predict/async?modalities=flair&pixel_mm=1&slice_mm=3"
    return found | {"study": Kind(path, buffer.getvalue(), {"content-type": "application/x-npy"})}


async def asked(client: httpx.AsyncClient, kind: Kind) -> httpx.Response:
    """The answer; of a job, its result once it is there."""
    response = await client.post(kind.path, content=kind.body, headers=kind.headers)
    if response.status_code != httpx.codes.ACCEPTED:
        return response
    place = f"/jobs/{response.json()['job_id']}"
    while (await client.get(place)).json()["state"] in ("queued", "running"):
        await asyncio.sleep(POLL_S)
    result = await client.get(f"{place}/result")
    await client.delete(place)
    return result


def same(first: httpx.Response, other: httpx.Response) -> bool:
    """Whether two answers say the same; sums over batches of different sizes differ in their last bits."""
    if v2.LENGTH_HEADER not in first.headers:
        ours, theirs = first.json(), other.json()
        return bool(abs(ours["tumor_probability"] - theirs["tumor_probability"]) < ATOL)
    ours, theirs = (
        v2.parse(each.content, each.headers[v2.LENGTH_HEADER], "outputs").tensors for each in (first, other)
    )
    return all(alike(array, theirs[name]) for name, array in ours.items() if name != "uncertainty_scores")


def alike(ours: Any, theirs: Any) -> bool:
    """Floats to a tolerance; of masks, one pixel in a thousand may lie on the edge."""
    if ours.dtype == np.float32:
        return bool(np.allclose(ours, theirs, atol=ATOL, equal_nan=True))
    return bool(np.mean(ours != theirs) < 1e-3)


async def point(url: str, kind: Kind, clients: int, seconds: float) -> dict[str, Any]:
    """One kind at one number of clients."""
    counts: Counter[str] = Counter()
    times: list[float] = []
    limits = httpx.Limits(max_connections=clients + 1)
    async with httpx.AsyncClient(base_url=url, timeout=180, trust_env=False, limits=limits) as client:
        first = (await asked(client, kind)).raise_for_status()
        start = time.perf_counter()

        async def one() -> None:
            while time.perf_counter() - start < seconds:
                begun = time.perf_counter()
                answer = await asked(client, kind)
                if answer.status_code in (429, 503):
                    counts["refused"] += 1
                    await asyncio.sleep(float(answer.headers.get("retry-after", 1)) / 4)
                elif answer.is_error:
                    counts["failed"] += 1
                else:
                    times.append(time.perf_counter() - begun)
                    counts["wrong"] += not same(first, answer)

        await asyncio.gather(*(one() for _ in range(clients)))
        span = time.perf_counter() - start
    told = {name: counts[name] for name in ("refused", "wrong", "failed")}
    return {"answered": len(times), "per_second": round(len(times) / span, 2)} | percentiles(times) | told


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--quick", action="store_true", help="3 s for each point")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--backend", choices=BACKENDS)
    given = parser.parse_args()
    seconds = 3.0 if given.quick else given.seconds
    result: dict[str, Any] = {"machine": machine(), "seconds": seconds, "backends": {}}
    with workspace(given.bundle) as (work, bundle):
        for backend in [given.backend] if given.backend else BACKENDS:
            with running(bundle, ServeConfig(backend=backend), work / backend) as state:
                result["backends"][backend] = {
                    name: {str(n): asyncio.run(point(state.gateway_url, kind, n, seconds)) for n in CLIENTS}
                    for name, kind in kinds().items()
                }
    result["load_average_after"] = machine()["load_average"]
    save("load", result)


if __name__ == "__main__":
    main()
