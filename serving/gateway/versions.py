"""Several versions as one backend: requests hold leases, the default moves between two of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from serving.codecs import v2
from serving.gateway.backend import Backend, RawAnswer
from serving.gateway.wire_backend import unknown_version
from serving.status import BackendError

log = logging.getLogger(__name__)


@dataclass
class _Entry:
    backend: Backend
    leases: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class VersionTable:
    """The versions that are served now.

    Attributes:
        default: The version of requests that name none; None while nothing is served.
        failures: Why a version is not served, for callers.
    """

    def __init__(self) -> None:
        self.default: str | None = None
        self.failures: dict[str, str] = {}
        self._entries: dict[str, _Entry] = {}

    @property
    def served(self) -> list[str]:
        """The versions, in order."""
        return sorted(self._entries, key=int)

    def summary(self) -> dict[str, Any]:
        """What a caller may know of the versions."""
        return {"default": self.default, "served": self.served, "failed": dict(self.failures)}

    def put(self, version: str, backend: Backend) -> None:
        """Serve a version that has been warmed up."""
        self._entries[version] = _Entry(backend)
        self.failures.pop(version, None)

    async def remove(self, version: str, drain_s: float) -> None:
        """Take a version out: no new requests, and those on the way end first.

        Args:
            version: One of ``served``.
            drain_s: Wait at most so long for them.
        """
        entry = self._entries.pop(version)
        if self.default == version:
            self.default = None
        if entry.leases:
            try:
                await asyncio.wait_for(entry.idle.wait(), drain_s)
            except TimeoutError:
                log.warning("version %s: %d requests did not end in time", version, entry.leases)
        await entry.backend.close()

    @asynccontextmanager
    async def lease(self, version: str | None = None) -> AsyncIterator[Backend]:
        """See ``Backend``."""
        name = version or self.default
        if name is None:
            raise BackendError("no model is served at the moment", "try again in a few seconds")
        entry = self._entries.get(name)
        if entry is None:
            raise unknown_version(name, self.served)
        entry.leases += 1
        entry.idle.clear()
        try:
            yield _Leased(entry.backend, self)
        finally:
            entry.leases -= 1
            if not entry.leases:
                entry.idle.set()

    async def infer(
        self, tensors: Mapping[str, Any], parameters: Mapping[str, Any], wanted: tuple[str, ...] = ()
    ) -> v2.Message:
        """See ``Backend``."""
        async with self.lease() as backend:
            return await backend.infer(tensors, parameters, wanted)

    async def forward(self, body: bytes, headers: Mapping[str, str], timeout_s: float | None = None) -> RawAnswer:
        """See ``Backend``."""
        async with self.lease() as backend:
            return await backend.forward(body, headers, timeout_s)

    async def describe(self) -> dict[str, Any]:
        """See ``Backend``; with the versions there are, and why some are not served."""
        async with self.lease() as backend:
            return await backend.describe()

    async def healthy(self) -> bool:
        """See ``Backend``: of the default."""
        try:
            async with self.lease() as backend:
                return await backend.healthy()
        except BackendError:
            return False

    async def close(self) -> None:
        """Close every version's connections."""
        for entry in self._entries.values():
            await entry.backend.close()


class _Leased:
    """One version's backend while it is leased; what is asked of all versions goes to the table."""

    def __init__(self, backend: Backend, table: VersionTable) -> None:
        self._backend = backend
        self._table = table
        self.infer = backend.infer
        self.forward = backend.forward
        self.healthy = backend.healthy

    async def describe(self) -> dict[str, Any]:
        return await self._backend.describe() | {"versions": self._table.summary()}

    @asynccontextmanager
    async def lease(self, version: str | None = None) -> AsyncIterator[Backend]:
        if version is None:
            yield self
            return
        async with self._table.lease(version) as other:
            yield other

    async def close(self) -> None:
        """Nothing: the version outlives the lease."""
