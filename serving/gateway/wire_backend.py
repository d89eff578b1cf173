"""What all model servers share that are asked by bodies: V2 messages, health, back-pressure."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import orjson

from serving.codecs import v2
from serving.codecs.envelope import PROBE_HEADER
from serving.gateway.admission import Admission
from serving.gateway.backend import RawAnswer, too_large
from serving.status import BackendError, BusyError, UnknownVersionError
from slicewise.config import ServeConfig
from slicewise.errors import SliceWiseError

PROBE_SIDE = 32
FRESH_S = 2.0
PROBE_DEADLINE_S = 10.0
JSON_HEADERS = {"content-type": "application/json"}

log = logging.getLogger(__name__)


class WireBackend(ABC):
    """A model server that takes a body and headers.

    Args:
        config: Deadline and how much may be in flight.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self._admission = Admission(config.max_in_flight, config.max_waiting, config.max_wait_s)
        self._probing = asyncio.Lock()
        self._checked = float("-inf")
        self._healthy = False

    @abstractmethod
    async def _send(self, body: bytes, headers: Mapping[str, str], deadline_s: float) -> RawAnswer:
        """Ask the server.

        Raises:
            InputError: The handler refused it.
            BackendError: No answer, or none in time.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give back what is held."""

    async def infer(
        self, tensors: Mapping[str, Any], parameters: Mapping[str, Any], wanted: tuple[str, ...] = ()
    ) -> v2.Message:
        """See ``Backend``."""
        body, length = v2.write(v2.Message(tensors, parameters, wanted=wanted), "inputs", binary=True)
        answer = await self.forward(body, {v2.LENGTH_HEADER: str(length), "content-type": v2.BINARY})
        return v2.parse(answer.content, answer.headers.get(v2.LENGTH_HEADER), "outputs")

    async def forward(self, body: bytes, headers: Mapping[str, str], timeout_s: float | None = None) -> RawAnswer:
        """See ``Backend``; waits for its turn first, within the same deadline."""
        if len(body) > self.config.max_body_bytes:
            raise too_large(self.config.max_request_mb)
        deadline_s = timeout_s or self.config.timeout_s
        start = time.monotonic()
        async with self._admission.admit(deadline_s):
            try:
                answer = await self._send(body, headers, max(deadline_s - (time.monotonic() - start), 0.001))
            except BackendError:
                # What was known of its health is doubtful now: the next who asks tries it.
                self._checked = float("-inf")
                raise
        self._note(True)
        return answer

    async def describe(self) -> dict[str, Any]:
        """See ``Backend``."""
        answer = await self._send(b'{"describe": true}', JSON_HEADERS, self.config.timeout_s)
        described: dict[str, Any] = orjson.loads(answer.content)
        version = str(described["version"])
        return described | {"versions": {"default": version, "served": [version], "failed": {}}}

    async def healthy(self) -> bool:
        """See ``Backend``: by a tiny inference, unless one passed within the last moments."""
        async with self._probing:
            if time.monotonic() - self._checked >= FRESH_S:
                self._note(await self._probe())
        return self._healthy

    @asynccontextmanager
    async def lease(self, version: str | None = None) -> AsyncIterator[WireBackend]:
        """See ``Backend``: there is one version only."""
        if version is not None and version != (served := str((await self.describe())["version"])):
            raise unknown_version(version, [served])
        yield self

    async def _probe(self) -> bool:
        """Does not wait for its turn: a full queue is no sickness."""
        ramp = np.arange(PROBE_SIDE**2, dtype=np.float32).reshape(1, 1, PROBE_SIDE, PROBE_SIDE)
        body, length = v2.write(v2.Message({"image": ramp}, {"tasks": "classify"}), "inputs", binary=True)
        try:
            headers = {v2.LENGTH_HEADER: str(length), "content-type": v2.BINARY, PROBE_HEADER: "1"}
            await self._send(body, headers, PROBE_DEADLINE_S)
        except BusyError:
            return True
        except SliceWiseError as error:
            log.warning("not healthy: %s", error)
            return False
        return True

    def _note(self, healthy: bool) -> None:
        self._checked, self._healthy = time.monotonic(), healthy


def unknown_version(version: str, served: list[str]) -> UnknownVersionError:
    """The refusal of a version that is not there."""
    known = ", ".join(served) or "none yet"
    return UnknownVersionError(f"version {version!r} is not served", f"use one of: {known}")
