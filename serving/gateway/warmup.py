"""One request through the whole way, before anybody is told that the server is ready."""

from __future__ import annotations

import io

import httpx
import numpy as np

from slicewise.errors import ServerError

SIDE = 64
TIMEOUT_S = 60.0


async def warm_up(url: str) -> None:
    """Segment a made-up slice through the gateway.

    Raises:
        ServerError: The answer was not what it should be.
    """
    buffer = io.BytesIO()
    np.save(buffer, np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE))
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
        headers = {"content-type": "application/x-npy"}
        try:
            response = await client.post(f"{url}/segment", content=buffer.getvalue(), headers=headers)
        except httpx.HTTPError as error:
            raise ServerError(f"the gateway does not answer: {error}", "see its log") from error
    if response.status_code != httpx.codes.OK:
        raise ServerError(f"the gateway answers {response.status_code}: {response.text[:200]}", "see its log")
