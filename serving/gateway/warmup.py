"""Requests through the whole way, before anybody is told that the server is ready."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, field

import httpx
import numpy as np
from PIL import Image

from slicewise.errors import ServerError

SIDE = 64
TIMEOUT_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One request of the warm-up.

    Attributes:
        path: The route.
        content: A made-up slice, as a file.
        kind: Its content type.
        parameters: The query.
    """

    path: str
    content: bytes = field(repr=False)
    kind: str
    parameters: dict[str, str | int | bool] = field(default_factory=dict)


async def warm_up(url: str) -> None:
    """Segment a made-up slice through the gateway; then go through the other routes, their readers and their writers.

    What is imported, compiled or opened at its first use is then no client's to wait for.

    Raises:
        ServerError: The segmentation's answer was not what it should be.
    """
    first, *others = requests()
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        response = await _send(client, first)
        if response.status_code != httpx.codes.OK:
            raise ServerError(f"the gateway answers {response.status_code}: {response.text[:200]}", "see its log")
        for request in others:
            if (status := (await _send(client, request)).status_code) != httpx.codes.OK:
                log.warning("warming up, %s answered %d", request.path, status)


def requests() -> list[Request]:
    """What is asked: that which every model must answer first."""
    ramp = np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    npy, png = io.BytesIO(), io.BytesIO()
    np.save(npy, ramp)
    Image.fromarray((ramp / ramp.max() * 255).astype(np.uint8)).save(png, "PNG")
    picture, array = (png.getvalue(), "image/png"), (npy.getvalue(), "application/x-npy")
    maps: dict[str, str | int | bool] = {"overlay": True, "probability_map": True}
    return [
        Request("/segment", *array),
        Request("/segment", *picture, maps),
        Request("/segment", *array, maps | {"mask_format": "npy", "map_format": "npy"}),
        Request("/segment", *picture, {"mask_format": "rle"}),
        Request("/segment/uncertainty", *picture, maps | {"n_mc_samples": 1}),
        Request("/predict_multitask", *picture),
        Request("/classify", *picture),
        Request("/classify/gradcam", *picture),
    ]


async def _send(client: httpx.AsyncClient, request: Request) -> httpx.Response:
    headers = {"content-type": request.kind}
    try:
        return await client.post(request.path, content=request.content, params=request.parameters, headers=headers)
    except httpx.HTTPError as error:
        raise ServerError(f"the gateway does not answer: {error}", "see its log") from error
